//! `creds`, and that no command shows a value.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::Host;

const SECRET: &str = "dont-show-this-anywhere";

/// A host whose slot1 has two credentials in files and one in the directory of its unit.
fn host() -> Host {
    let host = Host::new();
    let place = host.path("");
    host.write(
        "etc/slots/slot1.toml",
        &format!(
            "net = []\n[credentials.map.api-key]\nsource = \"{0}key\"\ndestination = \"API-KEY\"\n\
             [credentials.map.early]\nsource = \"{0}early\"\ntransport = \"smbios\"\n\
             [credentials.map.db]\nonce = true\n",
            place.display()
        ),
    );
    host.write("key", SECRET);
    host.write("early", &SECRET.repeat(2));
    std::fs::create_dir(host.path("unit")).unwrap();
    host.write("unit/HOST-db", SECRET);
    host
}

/// Runs a command as systemd starts it.
fn in_unit(host: &Host, arguments: &[&str]) -> common::Ended {
    let mut command = host.command(arguments);
    command.env("CREDENTIALS_DIRECTORY", host.path("unit"));
    host.ended(command.output().unwrap())
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn list_shows_names_sources_and_sizes() {
    let listed = in_unit(&host(), &["creds", "list", "slot1"]);
    let rows: Vec<Vec<&str>> = listed.stdout.lines().map(words).collect();
    assert_eq!(
        rows,
        [
            "CREDENTIAL TRANSPORT USES SOURCE VALUE",
            "HOST-API-KEY vsock any /HOST/key 23 bytes",
            "HOST-early smbios any /HOST/early 46 bytes",
            "HOST-db vsock once $CREDENTIALS_DIRECTORY/HOST-db 23 bytes",
        ]
        .map(words)
    );
    let host = host();
    std::fs::remove_file(host.path("key")).unwrap();
    let listed = host.run(&["creds", "list", "slot1", "--json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(
        listed.stdout.contains("\"problem\": \"missing\""),
        "{listed:?}"
    );
    assert!(
        listed
            .stdout
            .contains("\"problem\": \"known to the unit that runs the slot\""),
        "{listed:?}"
    );
}

#[test]
fn no_command_shows_a_value() {
    let host = host();
    for arguments in [
        &["creds", "list", "slot1", "--json"][..],
        &["creds", "check", "slot1", "--json"],
        &["config", "show", "slot1"],
        &["config", "show", "slot1", "--json"],
        &["run", "slot1", "--dry-run", "-vvv"],
        &["run", "slot1", "--dry-run", "--json"],
    ] {
        let ended = in_unit(&host, arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stdout.contains(SECRET), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.contains(SECRET), "{arguments:?}: {ended:?}");
        assert!(ended.stdout.contains("slot1") || ended.stdout.contains("HOST-API-KEY"));
    }
}

#[test]
fn check_and_run_refuse_what_cannot_be_read() {
    let host = host();
    let checked = in_unit(&host, &["creds", "check", "slot1"]);
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (Some(0), "No problems with 3 of slot1\n")
    );

    std::fs::remove_file(host.path("key")).unwrap();
    let checked = in_unit(&host, &["creds", "check", "slot1"]);
    assert_eq!(checked.code, Some(30), "{checked:?}");
    assert_eq!(
        checked.stdout,
        "HOST-API-KEY: There is no /HOST/key: add a LoadCredential= for it, or correct `source`\n\
         1 problem\n"
    );
    let ran = in_unit(&host, &["run", "slot1", "--ignore-cpu-check"]);
    ran.failed_with(30, "Credential HOST-API-KEY cannot be used");
    assert_eq!(host.files("state"), [""; 0], "nothing is made");

    host.write("key", SECRET);
    let checked = host.run(&["creds", "check", "slot1"]);
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (
            Some(0),
            "HOST-db: not checked, only the unit that runs slot1 has it\nNo problems with 2 of slot1\n"
        )
    );
    let ran = host.run(&["run", "slot1", "--ignore-cpu-check"]);
    ran.failed_with(31, "$CREDENTIALS_DIRECTORY is not set");
}

#[test]
fn unknown_keys_are_named() {
    let host = Host::new();
    host.write(
        "etc/slots/slot1.toml",
        "[credentials.map.a]\ntransprt = \"vsock\"\n[credentials.map.b]\ntransport = \"vsok\"\n\
         source = \"a/b\"\n",
    );
    let checked = host.run(&["config", "check", "slot1"]);
    for expected in [
        "`credentials.map.a.transprt`: unknown key; did you mean `transport`?",
        "`credentials.map.b.transport`: expected \"vsock\" or \"smbios\", found the text \"vsok\"; did you mean \"vsock\"?",
        "`credentials.map.b.source`: expected an absolute path, or the name of a file in $CREDENTIALS_DIRECTORY",
    ] {
        assert!(checked.stdout.contains(expected), "{checked:?}");
    }
}
