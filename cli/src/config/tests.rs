//! What the schema accepts, and the exact messages for what it does not.

use std::fs;
use std::path::Path;

use super::slot::SlotFile;
use super::*;

/// Reads `text` as the file of slot1 in the given format.
fn read(extension: &str, text: &str) -> Result<SlotFile, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("slot1.{extension}"));
    fs::write(&path, text).unwrap();
    let loaded = ConfigDir::new(dir.path().to_owned()).slot_file(&path);
    let shown = |error: ConfigError| {
        let text = error.to_string();
        text.replace(&format!("{}/", dir.path().display()), "")
    };
    loaded.map(|loaded| loaded.file).map_err(shown)
}

fn toml_error(text: &str) -> String {
    read("toml", text)
        .unwrap_err()
        .replace("Configuration is not valid: ", "")
}

fn json_error(text: &str) -> String {
    read("json", text)
        .unwrap_err()
        .replace("Configuration is not valid: ", "")
}

#[test]
fn an_empty_file_is_a_slot() {
    for (extension, text) in [("toml", ""), ("json", "{}")] {
        let file = read(extension, text).unwrap();
        assert!(file.name.is_none() && file.disks.is_empty() && file.nets.is_none());
    }
}

#[test]
fn toml_and_json_read_alike() {
    let toml = r#"
        name = "slot1"
        [boot]
        bootstrap = "/b"
        params = ["quiet", "x=1"]
        [machine]
        vcpus = 2
        memory = "2GiB"
        [[disk]]
        path = "/d"
        position = 2
        readonly = true
        [[net]]
        mac = "02:00:00:00:00:09"
    "#;
    let json = r#"{"name": "slot1", "boot": {"bootstrap": "/b", "params": ["quiet", "x=1"]},
        "machine": {"vcpus": 2, "memory": 2048},
        "disk": [{"path": "/d", "position": 2, "readonly": true}],
        "net": [{"mac": "02:00:00:00:00:09"}]}"#;
    for file in [read("toml", toml).unwrap(), read("json", json).unwrap()] {
        assert_eq!(file.name.unwrap().value.as_str(), "slot1");
        assert_eq!(file.common.boot.bootstrap.unwrap().value.0, Path::new("/b"));
        assert_eq!(file.common.boot.params.unwrap().value.len(), 2);
        assert_eq!(file.common.machine.vcpus.unwrap().value.0, 2);
        assert_eq!(file.common.machine.memory.unwrap().value.0, 2048);
        let [disk] = file.disks.as_slice() else {
            panic!("expected one disk")
        };
        assert!(disk.readonly.as_ref().unwrap().value);
        let Some([net]) = file.nets.as_deref() else {
            panic!("expected one card")
        };
        assert_eq!(net.mac.as_ref().unwrap().value.0, [2, 0, 0, 0, 0, 9]);
    }
}

#[test]
fn windows_of_shares_have_sizes_of_whole_mappings() {
    for dax in ["true", "0", "8", "17", "\"17GiB\"", "\"large\"", "[]"] {
        let share = format!("[[fs]]\ntag = \"a\"\nsource = \"/a\"\ndax = {dax}\n");
        let error = toml_error(&share);
        assert!(
            error.starts_with("slot1.toml:4:7: `fs[0].dax`: expected"),
            "{error}"
        );
    }
    for (dax, expected) in [
        ("false", Dax::Off),
        ("16", Dax::Window(16)),
        ("\"2GiB\"", Dax::Window(2048)),
    ] {
        let share = format!("[[fs]]\ntag = \"a\"\nsource = \"/a\"\ndax = {dax}\n");
        let file = read("toml", &share).unwrap();
        assert_eq!(file.shares[0].dax.as_ref().unwrap().value, expected);
    }
}

#[test]
fn shares_are_looked_at_for_microseconds_or_a_word() {
    for poll in ["false", "-1", "10001", "\"soon\"", "[]"] {
        let share = format!("[[fs]]\ntag = \"a\"\nsource = \"/a\"\npoll = {poll}\n");
        let error = toml_error(&share);
        assert!(
            error.starts_with("slot1.toml:4:8: `fs[0].poll`: expected"),
            "{error}"
        );
    }
    for (poll, expected) in [
        ("\"auto\"", Poll::Auto),
        ("\"off\"", Poll::Micros(0)),
        ("10000", Poll::Micros(10_000)),
    ] {
        let share = format!("[[fs]]\ntag = \"a\"\nsource = \"/a\"\npoll = {poll}\n");
        let file = read("toml", &share).unwrap();
        assert_eq!(file.shares[0].poll.as_ref().unwrap().value, expected);
    }
}

#[test]
fn an_unknown_key_is_placed_and_the_nearest_name_offered() {
    assert_eq!(
        toml_error("[machine]\n  memry = 1\n"),
        "slot1.toml:2:3: `machine.memry`: unknown key; did you mean `memory`? \
         (known here: memory, registers, uuid, vcpus)"
    );
    assert_eq!(
        json_error("{\n  \"machine\": {\"memry\": 1}\n}"),
        "slot1.json:2:15: `machine.memry`: unknown key; did you mean `memory`? \
         (known here: memory, registers, uuid, vcpus)"
    );
    let far = toml_error("xyzzy = 1");
    assert!(
        far.starts_with("slot1.toml:1:1: `xyzzy`: unknown key (known here: boot"),
        "{far}"
    );
}

#[test]
fn a_wrong_value_says_what_was_expected_and_found() {
    let cases = [
        (
            "machine.vcpus = \"2\"",
            "expected a whole number from 1 to 254, found the text \"2\"",
        ),
        (
            "machine.vcpus = 255",
            "expected a whole number from 1 to 254, found the number 255",
        ),
        (
            "machine.vcpus = 1.5",
            "expected a whole number from 1 to 254, found a number with a fraction",
        ),
        (
            "machine.memory = 0",
            "expected a size in MiB, at least 1, found the number 0",
        ),
        (
            "machine.memory = \"512MB\"",
            "decimal unit MB is not accepted: use MiB, GiB or TiB",
        ),
        (
            "machine.uuid = \"x\"",
            "expected a UUID that is not all zero, found the text \"x\"",
        ),
        (
            "boot.bootstrap = \"b\"",
            "expected an absolute path, found the text \"b\"",
        ),
        ("boot.bootstrap = \"\"", "expected text, found none"),
        (
            "net = [{ vhost = \"always\" }]",
            "expected true, false or \"auto\", found the text \"always\"",
        ),
        (
            "net = [{ queues = 9 }]",
            "expected a whole number from 1 to 8, found the number 9",
        ),
        (
            "net = [{ tx = { bandwidth = \"5MB\" } }]",
            "expected a number of bytes, or text such as \"512KiB\" or \"10MiB\", found the text \"5MB\"",
        ),
        (
            "net = [{ tx = { bandwidth = 0 } }]",
            "expected a number of bytes, or text such as \"512KiB\" or \"10MiB\", found the number 0",
        ),
        (
            "net = [{ tx = { bandwith = 5 } }]",
            "did you mean `bandwidth`? (known here: bandwidth, burst, packet_burst, packets)",
        ),
        (
            "snapshot.pause-limit = 5",
            "did you mean `pause_limit`? (known here: fsfreeze, pause_limit, rate)",
        ),
        (
            "snapshot.rate = 0",
            "expected a whole number from 1 to 1048576, found the number 0",
        ),
    ];
    check(&cases);
}

#[test]
fn a_wrong_kind_of_value_says_what_was_expected_and_found() {
    let cases = [
        (
            "boot.discovery = \"apci\"",
            "expected \"acpi\" or \"cmdline\", found the text \"apci\"; did you mean \"acpi\"?",
        ),
        (
            "boot.profile = \"quick\"",
            "expected \"fast\" or \"compatible\", found the text \"quick\"",
        ),
        (
            "console.mode = \"hvc0\"",
            "expected \"serial\" or \"hvc\", found the text \"hvc0\"; did you mean \"hvc\"?",
        ),
        (
            "machine.registers = \"exit\"",
            "expected \"memory\" or \"exits\", found the text \"exit\"; did you mean \"exits\"?",
        ),
        (
            "boot.params = \"quiet\"",
            "expected a list, found the text \"quiet\"",
        ),
        (
            "boot.params = [\"a\\nb\"]",
            "expected printable ASCII without line breaks, found the text \"a\\nb\"",
        ),
        (
            "data.discard = 1",
            "expected true or false, found the number 1",
        ),
        (
            "index = 256",
            "expected a whole number from 1 to 255, found the number 256",
        ),
        ("boot = 1", "expected a table, found the number 1"),
        (
            "disk = {}",
            "expected a list of tables, `[[disk]]`, found a table",
        ),
    ];
    check(&cases);
}

/// Checks the end of each message.
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let error = toml_error(text);
        assert!(error.ends_with(expected), "{text}: {error}");
        assert!(error.starts_with("slot1.toml:1:"), "{text}: {error}");
    }
}

#[test]
fn names_and_addresses_are_checked() {
    for (key, bad) in [
        ("tap", "a-name-too-long-1"),
        ("tap", "a/b"),
        ("mac", "01:00:00:00:00:01"),
        ("mac", "00:00:00:00:00:00"),
        ("mac", "02:00:00:00:00"),
        ("mac", "02:00:00:00:00:01:02"),
        ("mac", "2:0:0:0:0:1"),
        ("mac", "+2:00:00:00:00:01"),
    ] {
        let error = toml_error(&format!("[[net]]\n{key} = \"{bad}\""));
        assert!(
            error.starts_with(&format!("slot1.toml:2:7: `net[0].{key}`: ")),
            "{error}"
        );
    }
}

#[test]
fn sizes_have_binary_units() {
    for (text, mib) in [
        ("512", 512),
        ("\"512MiB\"", 512),
        ("\"2 GiB\"", 2048),
        ("\"1T\"", 1 << 20),
    ] {
        let file = read("toml", &format!("data.size = {text}")).unwrap();
        assert_eq!(file.common.data.size.unwrap().value.0, mib, "{text}");
    }
    for text in [
        "\"\"",
        "\"GiB\"",
        "\"1\"",
        "\"-1MiB\"",
        "\"1KiB\"",
        "\"99999999999999999999GiB\"",
        "-1",
    ] {
        assert!(
            read("toml", &format!("data.size = {text}")).is_err(),
            "{text}"
        );
    }
}

#[test]
fn every_problem_of_a_file_is_named_at_once() {
    let error = read("toml", "a = 1\nindex = 0\n[[disk]]\n").unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[0], "Configuration is not valid, 4 problems:");
    assert!(lines[1].starts_with("  slot1.toml:1:1: `a`: unknown key"));
    assert!(lines[2].starts_with("  slot1.toml:2:9: `index`: "));
    assert!(lines[3].starts_with("  slot1.toml:3:1: `disk[0]`: the key `path` is missing"));
}

#[test]
fn broken_syntax_is_placed() {
    let error = toml_error("a = 1\nb = \n");
    assert!(error.starts_with("slot1.toml:2:"), "{error}");
    let error = toml_error("a = 1\na = 2\n");
    assert!(
        error.starts_with("slot1.toml:2:1: duplicate key"),
        "{error}"
    );
    let error = json_error("{\n  \"a\": 1,\n}");
    assert!(error.starts_with("slot1.json:3:1: "), "{error}");
    assert_eq!(
        json_error("{\"a\": 1, \"a\": 2}"),
        "slot1.json:1:10: duplicate key `a`"
    );
    assert!(json_error("[1]").ends_with("expected a table, found a list"));
    assert!(json_error("").starts_with("slot1.json:1:1: "));
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(json_error(&deep).ends_with("expected at most 16 levels of nesting"));
}

#[test]
fn keys_with_escapes_are_still_keys() {
    let file = read("json", r#"{"n\u0061me": "slot1"}"#).unwrap();
    assert_eq!(file.name.unwrap().value.as_str(), "slot1");
    assert!(json_error(r#"{"b\u0061d": 1}"#).contains("`bad`: unknown key"));
}

#[test]
fn columns_count_characters() {
    let error = toml_error("machine = { \"é\" = 1, x = 2 }");
    assert!(error.contains("slot1.toml:1:22: `machine.x`"), "{error}");
}

#[test]
fn a_directory_names_its_slots_in_order_of_index() {
    let dir = tempfile::tempdir().unwrap();
    let slots = dir.path().join("slots");
    fs::create_dir(&slots).unwrap();
    for name in [
        "slot10.toml",
        "slot2.json",
        "web.toml",
        "README",
        "slot1.toml~",
    ] {
        fs::write(slots.join(name), "{}").unwrap();
    }
    let names = ConfigDir::new(dir.path().to_owned()).slot_names().unwrap();
    let names: Vec<&str> = names.iter().map(hostnet::slot::SlotName::as_str).collect();
    assert_eq!(names, ["web", "slot2", "slot10"]);
    fs::write(slots.join("Bad Name.toml"), "").unwrap();
    let error = ConfigDir::new(dir.path().to_owned())
        .slot_names()
        .unwrap_err();
    assert!(matches!(error, ConfigError::FileName { .. }), "{error}");
}

#[test]
fn files_that_contradict_their_place_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let slots = dir.path().join("slots");
    fs::create_dir(&slots).unwrap();
    let config = ConfigDir::new(dir.path().to_owned());
    let slot1 = "slot1".parse().unwrap();
    assert!(config.slot(&slot1).unwrap().path.is_none());
    fs::write(slots.join("slot1.toml"), "name = \"slot2\"").unwrap();
    let error = config.slot(&slot1).unwrap_err().to_string();
    assert!(
        error.ends_with("found \"slot2\": rename one of them"),
        "{error}"
    );
    fs::write(slots.join("slot1.json"), "{}").unwrap();
    assert!(matches!(
        config.slot(&slot1).unwrap_err(),
        ConfigError::Ambiguous { .. }
    ));
}

#[test]
fn what_is_no_text_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = ConfigDir::new(dir.path().to_owned());
    let host = dir.path().join("host.toml");
    fs::write(&host, [0xff, 0xfe]).unwrap();
    assert!(matches!(
        config.host().unwrap_err(),
        ConfigError::NotText { .. }
    ));
    fs::write(&host, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(matches!(
        config.host().unwrap_err(),
        ConfigError::TooLarge { .. }
    ));
    fs::remove_file(&host).unwrap();
    fs::create_dir(&host).unwrap();
    assert!(matches!(
        config.host().unwrap_err(),
        ConfigError::Read { .. }
    ));
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let valid = r#"{"name": "slot1", "boot": {"bootstrap": "/b", "params": ["é"]}, "disk": [{"path": "/d", "position": 2}]}"#;
    for end in 0..valid.len() {
        let Some(text) = valid.get(..end) else {
            continue;
        };
        assert!(read("json", text).is_err(), "{text}");
    }
    for position in 0..valid.len() {
        for byte in [b'"', b'{', b']', b'\\', b'9', b' '] {
            let mut bytes = valid.as_bytes().to_vec();
            bytes[position] = byte;
            if let Ok(text) = String::from_utf8(bytes) {
                let _ = read("json", &text);
                let _ = read("toml", &text);
            }
        }
    }
}

#[test]
fn the_documented_files_are_accepted() {
    let text = include_str!("../../../docs/configuration.md");
    let blocks: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let [host, slot] = blocks.as_slice() else {
        panic!("expected two examples, found {}", blocks.len())
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("host.toml"), host).unwrap();
    let host = ConfigDir::new(dir.path().to_owned()).host().unwrap();
    assert!(host.defaults.boot.bootstrap.is_some());
    let slot = read("toml", slot).unwrap();
    assert_eq!((slot.disks.len(), slot.shares.len()), (1, 1));
}

#[test]
fn a_reserved_cid_is_refused() {
    for cid in ["2", "4294967295"] {
        let error = toml_error(&format!("[vsock]\ncid = {cid}\n"));
        assert!(error.contains("vsock.cid"), "{error}");
        assert!(error.contains("3 to 4294967294"), "{error}");
    }
}
