//! apt on a private directory: refresh, resolve, download.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Mirror;
use crate::cache::Cache;
use crate::process;
use crate::progress::Step;
use crate::sys;

/// Package lists older than this are fetched again before a download.
const LISTS_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// A Debian release to take packages from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Debian 12: Linux 6.1, systemd 252.
    Bookworm,
    /// Debian 13: Linux 6.12, systemd 257.
    Trixie,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        })
    }
}

/// A private apt directory for one suite.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
    suite: Suite,
    // Held as long as this is used: apt's own locks are not taken for lists we only read.
    _lock: fs::File,
}

impl Apt {
    /// Opens the directory for `suite`, waiting for other labs that use it, and refreshes package
    /// lists that are missing or older than a day.
    ///
    /// # Errors
    /// When the machine has no apt or no mirror, or the mirror cannot be reached.
    pub fn open(cache: &Cache, suite: Suite) -> Result<Self> {
        let lock = cache.lock(&format!("apt-{suite}"))?;
        let dir = cache.root().join(format!("apt-{suite}"));
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))
                .with_context(|| format!("Cannot create {}", dir.join(sub).display()))?;
        }
        let apt = Self {
            dir,
            suite,
            _lock: lock,
        };
        apt.configure(&Mirror::detect()?)?;
        if apt.lists_age().is_none_or(|age| age > LISTS_MAX_AGE) {
            apt.refresh()?;
        }
        Ok(apt)
    }

    /// Downloads the packages `names` and all they depend on into `dir`.
    ///
    /// # Errors
    /// When a package is unknown or the download fails twice, the second time with new lists.
    pub fn download_closure(&self, names: &[&str], dir: &Path) -> Result<()> {
        fs::create_dir_all(dir.join("partial"))?;
        let archives = format!("Dir::Cache::archives={}/", dir.display());
        let get = || {
            let mut command = self.command("apt-get");
            command.args(["install", "-y", "-qq", "--download-only", "-o", &archives]);
            command.args(["-o", "APT::Status-Fd=1", "--"]).args(names);
            let step = Step::start(format!(
                "Fetching packages ({}: {}…)",
                self.suite,
                first(names)
            ));
            run_with_progress(&mut command, &step)
        };
        self.retrying(get)
    }

    /// Downloads the package `name` alone into `dir`, without what it depends on.
    ///
    /// # Errors
    /// When there is no such package or the download fails.
    pub fn download_alone(&self, name: &str, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        self.retrying(|| self.fetch(name, dir))
    }

    /// Downloads only the newest package that depending on `meta` brings in and whose name starts
    /// with `prefix`, and returns its file in `dir`: a kernel without what it recommends.
    ///
    /// # Errors
    /// When there is no such package or the download fails.
    pub fn download_one(&self, meta: &str, prefix: &str, dir: &Path) -> Result<PathBuf> {
        fs::create_dir_all(dir)?;
        let get = || {
            let plan = process::output(self.command("apt-get").args([
                "install",
                "-qq",
                "--simulate",
                "--",
                meta,
            ]))?;
            let name = planned_package(&plan, prefix)
                .with_context(|| format!("No package {prefix}* behind {meta} in {}", self.suite))?;
            self.fetch(name, dir)
        };
        self.retrying(get)?;
        let debs = deb_files(dir)?;
        debs.into_iter()
            .next()
            .with_context(|| format!("apt left no package in {}", dir.display()))
    }

    /// Downloads the source of the package `name` into `dir` and returns its authors' archive.
    ///
    /// # Errors
    /// When there is no such package, the download fails, or it has no archive of that kind.
    pub fn download_source(&self, name: &str, dir: &Path) -> Result<PathBuf> {
        fs::create_dir_all(dir)?;
        self.retrying(|| {
            let step = Step::start(format!("Fetching the source of {name}"));
            let mut command = self.command("apt-get");
            command.args(["source", "--download-only", "-qq", "-o", "APT::Status-Fd=1"]);
            run_with_progress(command.args(["--", name]).current_dir(dir), &step)
        })?;
        fs::read_dir(dir)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|file| file.starts_with(name) && file.contains(".orig.tar."))
            .map(|file| dir.join(file))
            .with_context(|| format!("The source of {name} has no archive of its authors"))
    }

    fn fetch(&self, name: &str, dir: &Path) -> Result<()> {
        let step = Step::start(format!("Fetching {name}"));
        let mut command = self.command("apt-get");
        command.args(["download", "-qq", "-o", "APT::Status-Fd=1", "--", name]);
        run_with_progress(command.current_dir(dir), &step)
    }

    /// Tries again with new package lists: a mirror drops packages that its lists once named.
    fn retrying(&self, get: impl Fn() -> Result<()>) -> Result<()> {
        get().or_else(|_| {
            self.refresh()?;
            get()
        })
    }

    fn configure(&self, mirror: &Mirror) -> Result<()> {
        let signed = mirror
            .signed_by
            .as_ref()
            .map_or(String::new(), |key| format!("[signed-by={key}] "));
        let source = format!("{signed}{} {} main contrib\n", mirror.uri, self.suite);
        let source = format!("deb {source}deb-src {source}");
        let dir = self.dir.display();
        let settings = [
            format!("Dir::State \"{dir}\";"),
            format!("Dir::State::status \"{dir}/status\";"),
            format!("Dir::State::lists \"{dir}/lists\";"),
            format!("Dir::Cache \"{dir}/cache\";"),
            format!("Dir::Etc::sourcelist \"{dir}/sources.list\";"),
            "Dir::Etc::sourceparts \"/dev/null\";".to_owned(),
            "Dir::Etc::preferences \"/dev/null\";".to_owned(),
            "Dir::Etc::preferencesparts \"/dev/null\";".to_owned(),
            // The unprivileged download user cannot enter a home directory's cache.
            "APT::Sandbox::User \"\";".to_owned(),
            "APT::Architecture \"amd64\";".to_owned(),
            "APT::Architectures { \"amd64\"; };".to_owned(),
            "APT::Install-Recommends \"false\";".to_owned(),
            "Acquire::Languages \"none\";".to_owned(),
            "Acquire::Retries \"3\";".to_owned(),
        ];
        let stale = fs::read_to_string(self.dir.join("sources.list")).ok() != Some(source.clone());
        if stale {
            // Lists of another mirror say nothing about this one.
            let _absent = fs::remove_file(self.stamp());
        }
        for (name, text) in [
            ("status", String::new()),
            ("sources.list", source),
            ("apt.conf", settings.join("\n")),
        ] {
            let path = self.dir.join(name);
            fs::write(&path, text).with_context(|| format!("Cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn refresh(&self) -> Result<()> {
        let step = Step::start(format!("Fetching package lists ({})", self.suite));
        let mut command = self.command("apt-get");
        command.args(["update", "-qq", "-o", "APT::Update::Error-Mode=any"]);
        run_with_progress(command.args(["-o", "APT::Status-Fd=1"]), &step)?;
        fs::write(self.stamp(), "")?;
        Ok(())
    }

    fn stamp(&self) -> PathBuf {
        self.dir.join("lists-fetched")
    }

    fn lists_age(&self) -> Option<Duration> {
        let fetched = fs::metadata(self.stamp()).ok()?.modified().ok()?;
        Some(fetched.elapsed().unwrap_or_default())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .env("LC_ALL", "C");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// The package files in `dir`, by name.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn deb_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut debs = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("Cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            debs.push(path);
        }
    }
    debs.sort();
    Ok(debs)
}

fn first<'a>(names: &[&'a str]) -> &'a str {
    names.first().copied().unwrap_or_default()
}

/// The package starting with `prefix` in what `apt-get --simulate` prints.
fn planned_package<'a>(plan: &'a str, prefix: &str) -> Option<&'a str> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .find(|name| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
}

/// Runs an apt command whose status lines come on standard output.
fn run_with_progress(command: &mut Command, step: &Step) -> Result<()> {
    let shown = process::describe(command);
    let mut child = sys::die_with_parent(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("Cannot start {shown}: the lab needs a Debian machine's apt"))?;
    let stderr = child.stderr.take();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr
            .map(|mut pipe| pipe.read_to_string(&mut text))
            .transpose()
            .map(|_| text)
    });
    let mut said = String::new();
    for line in child
        .stdout
        .take()
        .into_iter()
        .flat_map(|pipe| BufReader::new(pipe).lines())
    {
        let line = line?;
        match download_percent(&line) {
            Some(percent) => step.set_percent(percent),
            None => said.extend([line.as_str(), "\n"]),
        }
    }
    let status = child.wait()?;
    let errors = errors.join().ok().and_then(Result::ok).unwrap_or_default();
    if !status.success() {
        bail!(
            "{shown} failed ({status})\n{}{}",
            process::tail(&said, 10),
            process::tail(&errors, 20)
        );
    }
    Ok(())
}

/// The percentage in a line `dlstatus:<item>:<percent>:<text>`.
fn download_percent(line: &str) -> Option<u64> {
    let percent = line.strip_prefix("dlstatus:")?.split(':').nth(1)?;
    percent.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_of_a_status_line() {
        assert_eq!(
            download_percent("dlstatus:5:96.0000:Retrieving file 5 of 5"),
            Some(96)
        );
        assert_eq!(download_percent("Reading package lists..."), None);
    }

    #[test]
    fn planned_kernel_is_the_one_with_a_version() {
        let plan = "Inst kmod (30 x)\nInst linux-image-6.1.0-50-amd64 (6.1.176-1 y)\n\
                    Inst linux-image-amd64 (6.1.176-1 y)\n";
        assert_eq!(
            planned_package(plan, "linux-image-"),
            Some("linux-image-6.1.0-50-amd64")
        );
        assert_eq!(planned_package(plan, "nothing-"), None);
    }
}
