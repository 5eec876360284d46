//! The kernel parameters that a slot adds to those of its image.
//!
//! A parameter that the configuration sets itself is never added: the user's wins.

use devices::notify::PORT;
use hostnet::slot::SlotNet;
use vmm::boot::DefaultParam;

use super::boot::tells_identity;
use super::{Boot, Nic};
use crate::config::{Identity, Profile};

/// The serial port as the guest's console.
const SERIAL: &str = "console=ttyS0";

/// The virtio console as the guest's console.
const HVC: &str = "console=hvc0";

/// Parameters of a slot whose image does not set them: a console that is there, and a panic that
/// ends the machine instead of hanging it.
const DEFAULTS: [&str; 2] = [SERIAL, "panic=-1"];

/// Set whatever the image says: a reboot is a write to the keyboard controller, which can be told
/// from a triple fault; images often ask for `reboot=t`, which is one.
const REBOOT: &str = "reboot=k";

/// What [`Profile::Fast`] adds to them: the kernel's tests of its own cryptography, most of a boot of
/// a distribution's kernel, are left out, and the machine's one serial port is the only one looked for.
const FAST: [&str; 2] = ["cryptomgr.notests", "8250.nr_uarts=1"];

/// Keeps the kernel's messages in its log, because every character on the console leaves the guest.
const QUIET: &str = "quiet";

/// Whoever sets one of these wants to see messages.
const WANTS_MESSAGES: [&str; 6] = [
    "debug",
    "earlycon",
    "earlyprintk",
    "ignore_loglevel",
    "initcall_debug",
    "loglevel",
];

/// Parameters added where neither image nor configuration sets them.
pub(super) fn defaults(profile: Profile) -> Vec<DefaultParam> {
    let mut defaults: Vec<DefaultParam> = DEFAULTS.map(DefaultParam::from).to_vec();
    if profile == Profile::Fast {
        defaults.extend(FAST.map(DefaultParam::from));
        defaults.push(DefaultParam {
            text: QUIET.to_owned(),
            unless: WANTS_MESSAGES.map(str::to_owned).to_vec(),
        });
    }
    defaults
}

/// Has the kernel say on the console what it does, for those who wait for one of its messages.
pub(super) fn keep_messages(defaults: &mut Vec<DefaultParam>) {
    defaults.retain(|default| default.text != QUIET);
}

/// Has the guest use the virtio console, unless the slot's own parameters name one. It comes after an
/// image's own, so that it is the one the guest's programs talk to.
pub(super) fn console_is_hvc(boot: &mut Boot) {
    boot.defaults.retain(|default| default.text != SERIAL);
    if !boot.params.iter().any(|param| name(param) == name(HVC)) {
        boot.params.push(HVC.to_owned());
    }
}

/// The slot's parameters, ours first and `given` last, so that what the user says counts last.
pub(super) fn of_slot(
    net: &SlotNet,
    nics: &[Nic],
    identity: Identity,
    given: &[&str],
) -> Vec<String> {
    let mut params = vec![REBOOT.to_owned()];
    if tells_identity(identity) {
        // A guest without a network card would wait for one.
        if !nics.is_empty() {
            params.extend(address_params(net));
        }
        params.push(format!("systemd.hostname={}", net.name()));
    }
    let words: Vec<&str> = given
        .iter()
        .flat_map(|text| text.split_ascii_whitespace())
        .collect();
    params.retain(|param| !words.iter().any(|word| name(word) == name(param)));
    params.extend(words.into_iter().map(str::to_owned));
    params
}

/// Tells the guest's systemd where to report how far it is. A parameter, because it is no secret,
/// and because the SMBIOS tables, the other way, are not read without the module `dmi_sysfs`.
pub(super) fn report_to_host(params: &mut Vec<String>) {
    const CREDENTIAL: &str = "systemd.set_credential=vmm.notify_socket:";
    let is_ours = |word: &str| word.starts_with(CREDENTIAL);
    if !params
        .iter()
        .flat_map(|param| param.split_ascii_whitespace())
        .any(is_ours)
    {
        params.insert(0, format!("{CREDENTIAL}vsock-stream:2:{PORT}"));
        // systemd adds up all of these. It loads the module by itself for devices on PCI only.
        params.insert(1, "modules-load=vmw_vsock_virtio_transport".to_owned());
    }
}

fn name(param: &str) -> &str {
    param.split('=').next().unwrap_or(param)
}

/// Address, gateway and name server for `eth0`, in the kernel's own syntax; systemd's
/// network generator and initrds read it as well. Without `net.ifnames=0` udev renames `eth0`.
fn address_params(net: &SlotNet) -> [String; 2] {
    let gateway = net.gateway();
    [
        format!(
            "ip={}::{}:{}:{}:eth0:off:{}",
            net.guest(),
            gateway.addr(),
            gateway.netmask(),
            net.name(),
            gateway.addr()
        ),
        "net.ifnames=0".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Vhost;
    use crate::resolve::Queues;
    use crate::resolve::limits::Limit;

    fn slot1() -> SlotNet {
        let name: hostnet::slot::SlotName = "slot1".parse().unwrap();
        let index = name.index().unwrap();
        SlotNet::new(name, index)
    }

    fn card() -> [Nic; 1] {
        [Nic {
            id: "net0".to_owned(),
            is_first: true,
            position: 8,
            tap: "vm-slot1".parse().unwrap(),
            bridge: None,
            mac: [2, 0, 0, 0, 0, 1],
            queues: Queues::AtMost(1),
            mtu: None,
            vhost: Vhost::Off,
            dhcp: false,
            rx: Limit::default(),
            tx: Limit::default(),
        }]
    }

    #[test]
    fn a_slot_without_a_card_has_a_name_but_no_address() {
        let params = of_slot(&slot1(), &[], Identity::KernelParams, &[]);
        assert_eq!(params, ["reboot=k", "systemd.hostname=slot1"]);
    }

    #[test]
    fn a_slot_tells_its_guest_who_it_is() {
        assert_eq!(
            of_slot(&slot1(), &card(), Identity::KernelParams, &[]).join(" "),
            "reboot=k \
             ip=10.1.0.2::10.1.0.1:255.255.255.0:slot1:eth0:off:10.1.0.1 \
             net.ifnames=0 systemd.hostname=slot1"
        );
    }

    #[test]
    fn the_fast_profile_says_less_unless_messages_are_waited_for() {
        let texts = |defaults: &[DefaultParam]| -> Vec<String> {
            defaults.iter().map(|param| param.text.clone()).collect()
        };
        let plain = texts(&defaults(Profile::Compatible));
        assert_eq!(plain, DEFAULTS);
        let mut fast = defaults(Profile::Fast);
        assert_eq!(
            texts(&fast)[plain.len()..],
            ["cryptomgr.notests", "8250.nr_uarts=1", "quiet"]
        );
        keep_messages(&mut fast);
        assert!(!texts(&fast).contains(&QUIET.to_owned()));
    }

    #[test]
    fn a_guest_is_told_where_to_report_unless_the_user_says_where() {
        let mut params = vec!["reboot=k".to_owned()];
        report_to_host(&mut params);
        let ours = "systemd.set_credential=vmm.notify_socket:vsock-stream:2:5122";
        let module = "modules-load=vmw_vsock_virtio_transport";
        assert_eq!(params, [ours, module, "reboot=k"]);
        let theirs = "quiet systemd.set_credential=vmm.notify_socket:vsock-stream:2:99";
        let mut params = vec![theirs.to_owned()];
        report_to_host(&mut params);
        assert_eq!(params, [theirs]);
    }

    #[test]
    fn without_identity_only_the_machine_speaks() {
        let params = of_slot(&slot1(), &card(), Identity::None, &[]);
        assert_eq!(params, ["reboot=k"]);
    }

    #[test]
    fn what_the_user_sets_replaces_ours_and_comes_last() {
        let params = of_slot(
            &slot1(),
            &card(),
            Identity::None,
            &["quiet panic=5", "reboot=a"],
        );
        assert_eq!(params, ["quiet", "panic=5", "reboot=a"]);
    }
}
