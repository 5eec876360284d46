//! The machine that the guest sees: processors, memory, clock. The full matrix of kernels,
//! processors and memory is a command of the lab's.

use anyhow::{Context as _, Result};
use fixture::{Lab, TestVm};

/// Processors and MiB of memory: each count and each size once.
const SIZES: [(u64, u64); 4] = [(1, 256), (2, 2048), (3, 3584), (6, 5120)];

/// The values of a field of `/proc/cpuinfo`, one for each processor.
fn cpuinfo(vm: &mut TestVm, field: &str) -> Result<Vec<u64>> {
    let values = vm.guest.run(&format!(
        "sed -n 's/^{field}[[:blank:]]*: //p' /proc/cpuinfo"
    ))?;
    let parse = |value: &str| value.parse().with_context(|| format!("{field} is {value}"));
    values.lines().map(parse).collect()
}

#[test]
fn guest_sees_the_processors_and_the_memory_it_was_given() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    for (cpus, mib) in SIZES {
        let slot = lab.slot(&format!("[machine]\nvcpus = {cpus}\nmemory = {mib}\n"))?;
        let mut vm = slot.boot()?;
        let each = |value: u64| -> Vec<u64> { (0..cpus).map(|_| value).collect() };
        assert_eq!(vm.guest.number("nproc")?, cpus);
        assert_eq!(
            cpuinfo(&mut vm, "cpu cores")?,
            each(cpus),
            "{cpus} processors"
        );
        assert_eq!(
            cpuinfo(&mut vm, "siblings")?,
            each(cpus),
            "{cpus} processors"
        );
        assert_eq!(
            cpuinfo(&mut vm, "physical id")?,
            each(0),
            "{cpus} processors"
        );
        let cores = cpuinfo(&mut vm, "core id")?;
        assert_eq!(cores, (0..cpus).collect::<Vec<_>>());
        let apic_ids = cpuinfo(&mut vm, "apicid")?;
        assert_eq!(apic_ids, (0..cpus).collect::<Vec<_>>());

        let kib = vm
            .guest
            .number("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
        // The kernel keeps some for itself before it counts: its image, a part of the rest, and a
        // buffer for devices that do not reach beyond 4 GiB where there is memory.
        let buffer = if mib > 3072 { 64 } else { 0 };
        let enough = (mib - mib / 32 - 40 - buffer) * 1024;
        assert!(
            (enough..mib * 1024).contains(&kib),
            "{kib} KiB of {mib} MiB"
        );
        // Every byte above the hole below 4 GiB is where the kernel was told it is.
        let ram = vm.guest.run("grep -c 'System RAM' /proc/iomem")?;
        let pieces = if mib > 3072 { "3" } else { "2" };
        assert_eq!(ram, pieces, "{mib} MiB");
        vm.power_off()?;
    }
    Ok(())
}

#[test]
fn guest_has_a_good_clock_entropy_and_an_identity() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[machine]\nuuid = \"6f1d53a2-9c0e-4b7b-8e55-0c2f71d49a36\"\n")?;
    let mut vm = slot.boot()?;
    let clock = "/sys/devices/system/clocksource/clocksource0";
    let available = vm
        .guest
        .run(&format!("cat {clock}/available_clocksource"))?;
    assert!(available.contains("kvm-clock"), "{available}");
    let current = vm.guest.run(&format!("cat {clock}/current_clocksource"))?;
    assert!(
        ["kvm-clock", "tsc"].contains(&current.as_str()),
        "{current}"
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let theirs = vm.guest.number("date +%s")?;
    assert!(
        theirs.abs_diff(now.as_secs()) < 60,
        "{theirs} for {}",
        now.as_secs()
    );

    let generator = vm.guest.run("cat /sys/class/misc/hw_random/rng_current")?;
    assert!(generator.starts_with("virtio_rng"), "{generator}");
    assert_eq!(vm.guest.number("head -c 4096 /dev/hwrng | wc -c")?, 4096);
    assert_eq!(
        vm.guest.run("cat /sys/class/dmi/id/product_uuid")?,
        "6f1d53a2-9c0e-4b7b-8e55-0c2f71d49a36"
    );
    // Nothing that the machine says makes the kernel complain.
    let complaints =
        "dmesg | grep -E 'ACPI (BIOS )?(Error|Warning)|Firmware Bug|BUG:|WARNING: CPU' || true";
    assert_eq!(vm.guest.run(complaints)?, "");
    vm.power_off()?;
    Ok(())
}
