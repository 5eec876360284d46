# What working on slotvmm takes. `cargo lab` fetches its own tools from a Debian mirror and needs
# apt, so the lab does not run from here.
{
  mkShell,
  cargo,
  clippy,
  e2fsprogs,
  iproute2,
  rust-analyzer,
  rustc,
  rustfmt,
  squashfsTools,
}:

mkShell {
  packages = [
    cargo
    clippy
    e2fsprogs
    iproute2
    rust-analyzer
    rustc
    rustfmt
    squashfsTools
  ];
}
