//! Every verb on a file system that fills up, at every size of it: done, or as before.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::tree::{ACTS, furnish, hidden, tree};
use super::{forks, open};

/// Free space to try, in pages of 4 KiB.
const PAGES: std::ops::Range<usize> = 0..12;

/// Not a test of its own: what the other starts in a mount namespace, on a small tmpfs.
#[test]
fn child() {
    let Ok(root) = env::var("STORE_SMALL_ROOT") else {
        return;
    };
    let root = Path::new(&root);
    for (verb, act) in ACTS {
        for free in PAGES {
            let store_root = root.join("store");
            fs::create_dir(&store_root).unwrap();
            furnish(&store_root);
            let before = tree(&store_root);
            let ballast = root.join("ballast");
            fill(&ballast, free);
            let result = act(&open(&store_root));
            fs::remove_file(&ballast).unwrap();
            // What arrived of a snapshot stays on purpose, until it is not wanted.
            let _ = fs::remove_dir_all(store_root.join("states/.part-new"));
            let what = format!("{verb} with {free} pages: {result:?}");
            drop(open(&store_root).lock().unwrap());
            match result {
                Ok(()) => assert_eq!(open(&store_root).fsck(crate::fsck::Mode::Look).unwrap(), []),
                Err(_) => assert_eq!(tree(&store_root), before, "{what}"),
            }
            assert_eq!(hidden(&store_root), Vec::<String>::new(), "{what}");
            println!("tried: {what}");
            fs::remove_dir_all(&store_root).unwrap();
        }
    }
    println!("all tried");
}

/// Writes until the file system is full but for `free` pages.
fn fill(ballast: &Path, free: usize) {
    use std::io::Write as _;
    let mut file = fs::File::create(ballast).unwrap();
    let page = [1; 4096];
    let mut written = 0_u64;
    while file.write_all(&page).is_ok() {
        written += 4096;
    }
    file.set_len(written.saturating_sub(4096 * free as u64))
        .unwrap();
}

#[test]
fn verbs_on_a_full_disk_change_nothing() {
    let _alone = forks();
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m,mode=700 tmpfs \"$STORE_SMALL_ROOT\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "tests::space::child", "--nocapture"])
        .env("STORE_SMALL_ROOT", dir.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    if failed.contains("unshare failed") || failed.contains("mount:") {
        println!("skipped: no user and mount namespaces here: {failed}");
        return;
    }
    assert!(printed.contains("all tried"), "{printed}\n{failed}");
    assert!(
        printed.contains("StorageFull"),
        "nothing ever failed: {printed}"
    );
}
