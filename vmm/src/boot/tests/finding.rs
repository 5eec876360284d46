//! Which kernel, initrd and parameters a source yields.

use backhand::compression::Compressor;
use tempfile::tempdir;

use super::super::testing::Item::{File, Link};
use super::super::testing::*;
use super::super::*;

const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

/// Opens an image with these entries.
fn open_items(items: &[(&str, Item<'_>)]) -> Result<Payload, OpenError> {
    open_toplevel(items, None)
}

fn open_toplevel(items: &[(&str, Item<'_>)], toplevel: Option<&str>) -> Result<Payload, OpenError> {
    let dir = tempdir().unwrap();
    let path = put(dir.path(), "image", &image(Compressor::Zstd, items));
    let source = BootSource::Bootstrap {
        image: path.clone(),
        toplevel: toplevel.map(str::to_owned),
    };
    open(&BootConfig {
        source,
        ..boots(&path)
    })
}

fn error_of(items: &[(&str, Item<'_>)]) -> String {
    chain(&open_items(items).unwrap_err())
}

fn kernel() -> Vec<u8> {
    Elf::default().build()
}

fn bootspec(kernel: &str, initrd: &str) -> String {
    format!(
        r#"{{"org.nixos.bootspec.v1": {{"system": "x86_64-linux", "label": "x", "toplevel": "/t",
        "init": "/nix/store/s/init", "kernel": "{kernel}", "initrd": "{initrd}",
        "kernelParams": ["loglevel=4", "root=fstab"]}},
        "org.nixos.specialisation.v1": {{}}, "vendor.extension": 1}}"#
    )
}

#[test]
fn boot_directory_is_read_from_every_compressor() {
    let bytes = good_bzimage();
    for compressor in [
        Compressor::Gzip,
        Compressor::Xz,
        Compressor::Zstd,
        Compressor::Lz4,
    ] {
        let dir = tempdir().unwrap();
        let items = [
            ("/boot/vmlinuz", File(&bytes)),
            ("/boot/initrd", File(b"initrd bytes")),
            ("/boot/cmdline", File(b"quiet\nroot=/dev/vdb\n")),
        ];
        let path = put(dir.path(), "image", &image(compressor, &items));
        let mut config = boots(&path);
        config.params = vec!["panic=-1".to_owned()];
        let payload = open(&config).unwrap();
        let about = payload.describe();
        assert_eq!(about.kernel, "/boot/vmlinuz", "{compressor:?}");
        assert_eq!(about.format, KernelFormat::Elf);
        assert_eq!(about.initrd.unwrap().bytes, 12);
        assert_eq!(payload.params(), "quiet root=/dev/vdb panic=-1");
        let (memory, machine) = machine(64);
        payload.load(&memory, "", &machine).unwrap();
        assert_eq!(peek(&memory, 64 * MIB - 4096, 12), b"initrd bytes");
    }
}

#[test]
fn newest_version_boots_with_its_own_initrd() {
    let (kernel, old) = (kernel(), b"old".as_slice());
    let payload = open_items(&[
        ("/boot/vmlinuz-6.1.0-9", File(old)),
        ("/boot/vmlinuz-6.1.0-18", File(&kernel)),
        ("/boot/vmlinuz-6.1.0-20.old", File(old)),
        ("/boot/initrd.img-6.1.0-9", File(b"9")),
        ("/boot/initrd.img-6.1.0-18", File(b"18")),
        ("/boot/System.map-6.1.0-18", File(b"map")),
    ])
    .unwrap();
    let about = payload.describe();
    assert_eq!(about.kernel, "/boot/vmlinuz-6.1.0-18");
    assert_eq!(about.initrd.unwrap().path, "/boot/initrd.img-6.1.0-18");
    assert_eq!(payload.params(), "");
}

#[test]
fn plain_name_wins_over_versions_and_links_are_followed() {
    let kernel = kernel();
    let payload = open_items(&[
        ("/boot/vmlinuz-7", File(b"not this one")),
        ("/boot/vmlinuz", Link("../../usr/lib/k")),
        ("/usr/lib/k", File(&kernel)),
        ("/boot/initrd.img", Link("/usr/lib/i")),
        ("/usr/lib/i", File(b"i")),
    ])
    .unwrap();
    assert_eq!(payload.describe().kernel, "/usr/lib/k");
    assert_eq!(payload.describe().initrd.unwrap().path, "/usr/lib/i");
}

#[test]
fn initrd_of_another_version_is_not_taken() {
    let kernel = kernel();
    let error = error_of(&[
        ("/boot/vmlinuz-6.12", File(&kernel)),
        ("/boot/initrd.img-6.1", File(b"i")),
    ]);
    assert!(
        error.contains("/boot/vmlinuz-6.12 needs /boot/initrd.img-6.12"),
        "{error}"
    );
}

#[test]
fn kernel_without_any_initrd_boots_without() {
    let kernel = kernel();
    let payload = open_items(&[("/boot/vmlinux", File(&kernel))]).unwrap();
    assert_eq!(payload.describe().initrd, None);
}

#[test]
fn bootspec_in_the_root_wins_and_names_everything() {
    let (kernel, spec) = (kernel(), bootspec("/k", "/i"));
    let items = [
        ("/boot.json", File(spec.as_bytes())),
        ("/k", File(&kernel)),
        ("/i", File(b"i")),
        ("/boot/vmlinuz", File(b"not this one")),
    ];
    let payload = open_items(&items).unwrap();
    assert_eq!(payload.describe().kernel, "/k");
    assert_eq!(payload.describe().found_by, "bootspec /boot.json");
    assert_eq!(
        payload.params(),
        "loglevel=4 root=fstab init=/nix/store/s/init"
    );
}

#[test]
fn configured_init_replaces_the_one_found() {
    let (kernel, spec) = (kernel(), bootspec("/k", "/k"));
    let dir = tempdir().unwrap();
    let items = [("/boot.json", File(spec.as_bytes())), ("/k", File(&kernel))];
    let path = put(dir.path(), "image", &image(Compressor::Gzip, &items));
    let config = BootConfig {
        init: Some("/bin/sh".to_owned()),
        ..boots(&path)
    };
    assert_eq!(
        open(&config).unwrap().params(),
        "loglevel=4 root=fstab init=/bin/sh"
    );
}

/// A store with one system; `prefix` is where the store lies in the image.
fn store<'a>(prefix: &str, kernel: &'a [u8], system: &str) -> Vec<(String, Item<'a>)> {
    let at = |name: &str| format!("{prefix}/{HASH}-{name}");
    let link = |target: &'static str| Link(target);
    vec![
        (at("linux/bzImage"), File(kernel)),
        (at("initrd/initrd"), File(b"initrd")),
        (
            at(&format!("{system}/kernel")),
            link("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-linux/bzImage"),
        ),
        (
            at(&format!("{system}/initrd")),
            link("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-initrd/initrd"),
        ),
        (at(&format!("{system}/init")), File(b"#!")),
        (
            at(&format!("{system}/kernel-params")),
            File(b"loglevel=4 lsm=landlock"),
        ),
        // Shares the system's name without being one.
        (at("nixos-system-x-units/a"), File(b"")),
    ]
}

fn borrowed<'a>(items: &'a [(String, Item<'a>)]) -> Vec<(&'a str, Item<'a>)> {
    let item = |item: &Item<'a>| match item {
        File(bytes) => File(bytes),
        Link(target) => Link(target),
    };
    items
        .iter()
        .map(|(path, i)| (path.as_str(), item(i)))
        .collect()
}

#[test]
fn toplevel_is_found_where_the_root_is_a_store_and_where_it_is_a_system() {
    let kernel = good_bzimage();
    for prefix in ["", "/nix/store"] {
        let items = store(prefix, &kernel, "nixos-system-slot1-25.11");
        let payload = open_items(&borrowed(&items)).unwrap();
        let about = payload.describe();
        assert_eq!(about.kernel, format!("{prefix}/{HASH}-linux/bzImage"));
        assert_eq!(about.initrd.unwrap().bytes, 6);
        assert_eq!(
            payload.params(),
            format!("loglevel=4 lsm=landlock init=/nix/store/{HASH}-nixos-system-slot1-25.11/init")
        );
    }
}

#[test]
fn system_profile_decides_between_several_systems() {
    let kernel = kernel();
    let mut items = store("/nix/store", &kernel, "nixos-system-a-1");
    items.extend(store("/nix/store", &kernel, "nixos-system-b-2").drain(2..6));
    let target = format!("/nix/store/{HASH}-nixos-system-b-2");
    let profiles = "/nix/var/nix/profiles";
    items.push((format!("{profiles}/system"), Link("system-4-link")));
    items.push((format!("{profiles}/system-4-link"), Link(&target)));
    let payload = open_items(&borrowed(&items)).unwrap();
    assert!(
        payload.params().ends_with("b-2/init"),
        "{}",
        payload.params()
    );
}

#[test]
fn several_systems_are_an_error_until_one_is_chosen() {
    let kernel = kernel();
    let mut items = store("", &kernel, "nixos-system-a-1");
    items.extend(store("", &kernel, "nixos-system-b-2").drain(2..6));
    let items = borrowed(&items);
    let error = error_of(&items);
    assert!(error.contains("-a-1, /nix/store/"), "{error}");
    assert!(error.contains("boot.toplevel"), "{error}");
    let chosen = format!("/nix/store/{HASH}-nixos-system-a-1");
    let payload = open_toplevel(&items, Some(&chosen)).unwrap();
    assert!(payload.params().ends_with("a-1/init"));
    let error = chain(&open_toplevel(&items, Some("/nix/store/none")).unwrap_err());
    assert!(
        error.contains("the chosen toplevel needs /nix/store/none"),
        "{error}"
    );
}

#[test]
fn toplevel_on_the_host_is_read_like_one_in_an_image() {
    let dir = tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    put(&root, "linux/bzImage", &good_bzimage());
    put(&root, "initrd-dir/initrd", b"i");
    put(&root, "system/kernel-params", b"a b");
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(root.join(target), root.join(name)).unwrap();
    };
    link("linux/bzImage", "system/kernel");
    link("initrd-dir/initrd", "system/initrd");
    link("system", "current-system");
    let config = BootConfig {
        source: BootSource::Toplevel {
            path: root.join("current-system"),
        },
        ..boots(&root)
    };
    let payload = open(&config).unwrap();
    let init = root.join("system/init");
    assert_eq!(payload.params(), format!("a b init={}", init.display()));
    assert_eq!(payload.describe().format, KernelFormat::Elf);

    let spec = bootspec(
        root.join("linux/bzImage").to_str().unwrap(),
        root.join("initrd-dir/initrd").to_str().unwrap(),
    );
    put(&root, "system/boot.json", spec.as_bytes());
    let payload = open(&config).unwrap();
    assert!(payload.params().starts_with("loglevel=4"));
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let kernel = kernel();
    let spec = |text: &'static str| [("/boot.json", File(text.as_bytes()))];
    let error = error_of(&[("/etc/hostname", File(b"x"))]);
    assert!(error.contains("holds no kernel"), "{error}");
    let error = error_of(&spec("{"));
    assert!(error.contains("/boot.json is no bootspec"), "{error}");
    let error = error_of(&spec(r#"{"org.nixos.bootspec.v2": {}}"#));
    assert!(
        error.contains("missing field `org.nixos.bootspec.v1`"),
        "{error}"
    );
    let named = bootspec("/k", "/gone");
    let error = error_of(&[
        ("/boot.json", File(named.as_bytes())),
        ("/k", File(&kernel)),
    ]);
    assert!(error.contains("/boot.json needs /gone"), "{error}");
    let error = error_of(&[
        ("/kernel", Link("/nowhere")),
        ("/kernel-params", File(b"a")),
    ]);
    assert!(error.contains("/ needs /kernel"), "{error}");
    let error = error_of(&[("/boot/vmlinuz", Link("a")), ("/boot/a", Link("vmlinuz"))]);
    assert!(
        error.contains("too many symlinks while following /boot/vmlinuz"),
        "{error}"
    );
    let error = error_of(&[
        ("/boot/vmlinuz", File(&kernel)),
        ("/boot/cmdline", File(b"quiet\0")),
    ]);
    assert!(
        error.contains("/boot/cmdline holds '\\0' at byte 5"),
        "{error}"
    );
    let error = error_of(&[
        ("/boot/vmlinuz", File(&kernel)),
        ("/boot/cmdline", File(&vec![b'a'; 65537])),
    ]);
    assert!(
        error.contains("has 65537 bytes, expected at most 65536"),
        "{error}"
    );
    let error = error_of(&[
        ("/boot/vmlinuz", File(&kernel)),
        ("/boot/initrd", File(b"")),
    ]);
    assert!(error.contains("/boot/initrd: is empty"), "{error}");
}

#[test]
fn links_never_leave_the_image() {
    let error = error_of(&[("/boot/vmlinuz", Link("../../../../../proc/self/exe"))]);
    assert!(error.contains("holds no kernel"), "{error}");
}
