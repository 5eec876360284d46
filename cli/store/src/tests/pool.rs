//! A model of ZFS: data sets are directories, snapshots are copies of them. It understands exactly
//! the commands that are given, and refuses what ZFS refuses.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::zfs::{Answer, Runner};

/// The data set above those of states.
pub(super) const BASE: &str = "microvms/storage/states";

/// A pool in a directory.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) root: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    taken: u64,
    sets: BTreeMap<String, Set>,
    snapshots: Vec<Snapshot>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Set {
    mountpoint: PathBuf,
    /// The snapshot that it was cloned from.
    origin: Option<u64>,
    mounted: Mounted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Mounted {
    Yes,
    No,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Snapshot {
    set: String,
    name: String,
    guid: u64,
    deferred: bool,
    properties: BTreeMap<String, String>,
}

type Said = Result<String, String>;

impl Runner for Pool {
    fn run(&self, arguments: &[&str]) -> io::Result<Answer> {
        let lock = File::create(self.root.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let file = self.root.join("pool.json");
        let mut content = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(_) => Content::default(),
        };
        let said = self.answer(&mut content, arguments);
        fs::write(&file, serde_json::to_vec(&content)?)?;
        Ok(said.map_or_else(Answer::Refused, Answer::Done))
    }
}

impl Pool {
    fn answer(&self, content: &mut Content, arguments: &[&str]) -> Said {
        match arguments {
            [
                "list",
                "-H",
                "-p",
                "-t",
                "filesystem",
                "-d",
                "1",
                "-o",
                "name,mountpoint,mounted",
                BASE,
            ] => Ok(content.list_sets(&self.root.with_file_name("states"))),
            [
                "list",
                "-H",
                "-p",
                "-t",
                "snapshot",
                "-r",
                "-s",
                "createtxg",
                "-o",
                columns,
                BASE,
            ] => {
                assert_eq!(
                    *columns,
                    "name,guid,creation,referenced,defer_destroy,clones,slotvmm:reset,slotvmm:manifest"
                );
                Ok(content.list_snapshots())
            }
            ["create", "-o", mountpoint, set] => content.create(set, place(mountpoint), None),
            ["clone", "-o", mountpoint, source, set] => {
                let source = content.find(source)?.guid;
                content.create(set, place(mountpoint), Some(source))?;
                copy(&self.copy_of(source), &place(mountpoint));
                Ok(String::new())
            }
            ["set", mountpoint, set] => content.mount_at(set, place(mountpoint)),
            ["snapshot", properties @ .., name] => self.snapshot(content, properties, name),
            ["inherit", property, name] => {
                content.find(name)?.properties.remove(*property);
                Ok(String::new())
            }
            ["rename", from, to] => self.rename(content, from, to),
            ["promote", set] => content.promote(set),
            ["unmount", set] => content.mount(set, Mounted::No),
            ["mount", set] => content.mount(set, Mounted::Yes),
            ["destroy", "-d", name] => self.destroy_snapshot(content, name, Dependents::Keep),
            ["destroy", "-r", set] => self.destroy(content, set),
            ["destroy", name] => self.destroy_snapshot(content, name, Dependents::Refuse),
            other => unreachable!("zfs {other:?}"),
        }
    }

    fn copy_of(&self, guid: u64) -> PathBuf {
        self.root.join(guid.to_string())
    }

    fn snapshot(&self, content: &mut Content, properties: &[&str], name: &str) -> Said {
        if content.find(name).is_ok() {
            return Err(format!(
                "cannot create snapshot '{name}': dataset already exists"
            ));
        }
        let (set, snapshot) = name.split_once('@').unwrap();
        let from = content.set(set)?.mountpoint.clone();
        content.taken += 1;
        let guid = content.taken;
        let pairs = properties
            .chunks(2)
            .map(|pair| pair[1].split_once('=').unwrap());
        content.snapshots.push(Snapshot {
            set: set.to_owned(),
            name: snapshot.to_owned(),
            guid,
            deferred: false,
            properties: pairs
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        });
        fs::create_dir(self.copy_of(guid)).unwrap();
        copy(&from, &self.copy_of(guid));
        self.link_all(content);
        Ok(String::new())
    }

    fn rename(&self, content: &mut Content, from: &str, to: &str) -> Said {
        if content.find(to).is_ok() {
            return Err(format!("cannot rename to '{to}': dataset already exists"));
        }
        let name = to.split_once('@').unwrap().1.to_owned();
        content.find(from)?.name = name;
        self.link_all(content);
        Ok(String::new())
    }

    fn destroy_snapshot(&self, content: &mut Content, name: &str, dependents: Dependents) -> Said {
        let guid = content.find(name)?.guid;
        let is_needed = content.sets.values().any(|set| set.origin == Some(guid));
        match (is_needed, dependents) {
            (true, Dependents::Refuse) => {
                return Err(format!(
                    "cannot destroy '{name}': snapshot has dependent clones"
                ));
            }
            (true, Dependents::Keep) => content.find(name)?.deferred = true,
            (false, _) => self.drop_snapshot(content, guid),
        }
        self.link_all(content);
        Ok(String::new())
    }

    fn drop_snapshot(&self, content: &mut Content, guid: u64) {
        content.snapshots.retain(|snapshot| snapshot.guid != guid);
        fs::remove_dir_all(self.copy_of(guid)).unwrap();
    }

    fn destroy(&self, content: &mut Content, set: &str) -> Said {
        let mountpoint = content.set(set)?.mountpoint.clone();
        let its: Vec<u64> = content.of(set).map(|snapshot| snapshot.guid).collect();
        let is_needed = |guid: &u64| {
            content
                .sets
                .values()
                .any(|other| other.origin == Some(*guid))
        };
        if its.iter().any(is_needed) {
            return Err(format!(
                "cannot destroy '{set}': filesystem has dependent clones"
            ));
        }
        let origin = content.sets.remove(set).and_then(|set| set.origin);
        its.into_iter()
            .for_each(|guid| self.drop_snapshot(content, guid));
        fs::remove_dir_all(mountpoint).unwrap();
        let last = |snapshot: &Snapshot| {
            let is_free = !content
                .sets
                .values()
                .any(|set| set.origin == Some(snapshot.guid));
            snapshot.deferred && origin == Some(snapshot.guid) && is_free
        };
        if let Some(guid) = content
            .snapshots
            .iter()
            .find(|it| last(it))
            .map(|it| it.guid)
        {
            self.drop_snapshot(content, guid);
        }
        self.link_all(content);
        Ok(String::new())
    }

    /// Shows every snapshot where ZFS does.
    fn link_all(&self, content: &Content) {
        for (name, set) in &content.sets {
            let dir = set.mountpoint.join(".zfs/snapshot");
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            for it in content.of(name) {
                std::os::unix::fs::symlink(self.copy_of(it.guid), dir.join(&it.name)).unwrap();
            }
        }
    }
}

/// What becomes of a snapshot that clones depend on.
enum Dependents {
    Keep,
    Refuse,
}

impl Content {
    fn set(&self, name: &str) -> Result<&Set, String> {
        let none = || format!("cannot open '{name}': dataset does not exist");
        self.sets.get(name).ok_or_else(none)
    }

    fn of<'a>(&'a self, set: &'a str) -> impl Iterator<Item = &'a Snapshot> {
        self.snapshots.iter().filter(move |it| it.set == set)
    }

    fn find(&mut self, name: &str) -> Result<&mut Snapshot, String> {
        let (set, snapshot) = name.split_once('@').unwrap();
        let mut snapshots = self.snapshots.iter_mut();
        snapshots
            .find(|it| it.set == set && it.name == snapshot)
            .ok_or_else(|| format!("could not find any snapshots to destroy: {name}"))
    }

    fn create(&mut self, name: &str, mountpoint: PathBuf, origin: Option<u64>) -> Said {
        if self.sets.contains_key(name) {
            return Err(format!("cannot create '{name}': dataset already exists"));
        }
        fs::create_dir(&mountpoint).unwrap();
        self.sets.insert(
            name.to_owned(),
            Set {
                mountpoint,
                origin,
                mounted: Mounted::Yes,
            },
        );
        Ok(String::new())
    }

    fn mount(&mut self, name: &str, mounted: Mounted) -> Said {
        self.set(name)?;
        self.sets.get_mut(name).unwrap().mounted = mounted;
        Ok(String::new())
    }

    fn mount_at(&mut self, name: &str, mountpoint: PathBuf) -> Said {
        self.set(name)?;
        let set = self.sets.get_mut(name).unwrap();
        fs::rename(&set.mountpoint, &mountpoint).unwrap();
        set.mountpoint = mountpoint;
        Ok(String::new())
    }

    fn promote(&mut self, name: &str) -> Said {
        let origin = self.set(name)?.origin;
        let origin =
            origin.ok_or_else(|| format!("cannot promote '{name}': not a cloned filesystem"))?;
        let from = self
            .snapshots
            .iter()
            .find(|it| it.guid == origin)
            .unwrap()
            .set
            .clone();
        let moved = |it: &Snapshot| it.set == from && it.guid <= origin;
        let names: Vec<_> = self.of(name).map(|it| it.name.clone()).collect();
        if self
            .snapshots
            .iter()
            .any(|it| moved(it) && names.contains(&it.name))
        {
            return Err(format!("cannot promote '{name}': snapshot name conflict"));
        }
        for it in &mut self.snapshots {
            if it.set == from && it.guid <= origin {
                it.set = name.to_owned();
            }
        }
        let before = self.set(&from)?.origin;
        self.sets.get_mut(name).unwrap().origin = before;
        self.sets.get_mut(&from).unwrap().origin = Some(origin);
        Ok(String::new())
    }

    fn list_sets(&self, states: &Path) -> String {
        let line = |(name, set): (&String, &Set)| {
            let mounted = if set.mounted == Mounted::Yes {
                "yes"
            } else {
                "no"
            };
            format!("{name}\t{}\t{mounted}\n", set.mountpoint.display())
        };
        let sets: String = self.sets.iter().map(line).collect();
        format!("{BASE}\t{}\tyes\n{sets}", states.display())
    }

    fn list_snapshots(&self) -> String {
        let line = |it: &Snapshot| {
            let clones = self
                .sets
                .iter()
                .filter(|(_, set)| set.origin == Some(it.guid));
            let clones: Vec<_> = clones.map(|(name, _)| name.as_str()).collect();
            let property = |name: &str| it.properties.get(name).map_or("-", String::as_str);
            let clones = if clones.is_empty() {
                "-".to_owned()
            } else {
                clones.join(",")
            };
            format!(
                "{}@{}\t{}\t1700000000\t4096\t{}\t{clones}\t{}\t{}\n",
                it.set,
                it.name,
                it.guid,
                if it.deferred { "on" } else { "off" },
                property("slotvmm:reset"),
                property("slotvmm:manifest"),
            )
        };
        self.snapshots.iter().map(line).collect()
    }
}

fn place(mountpoint: &str) -> PathBuf {
    mountpoint.strip_prefix("mountpoint=").unwrap().into()
}

/// Copies what is in a directory, but for the view of its snapshots. Starts no process: other tests
/// try locks meanwhile.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name() == ".zfs" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&place).unwrap();
            copy(&path, &place);
        } else {
            fs::copy(&path, &place).unwrap();
        }
    }
}
