//! Links the guest at a fixed address, without a C runtime. The flags live here rather than in a
//! cargo configuration file, which cargo would only find from some working directories.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/link.ld");
    println!("cargo::rerun-if-changed={script}");
    for flag in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,noexecstack",
    ] {
        println!("cargo::rustc-link-arg-bin=tiny-guest={flag}");
    }
    println!("cargo::rustc-link-arg-bin=tiny-guest=-Wl,-T,{script}");
}
