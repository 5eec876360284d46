# The slotvmm program. Its check phase runs the unit tests: those beside the code need neither
# root nor KVM. Tests that boot a guest belong to `cargo lab check`.
{
  lib,
  rustPlatform,
  installShellFiles,
}:

let
  workspace = (lib.importTOML ../Cargo.toml).workspace.package;
in
rustPlatform.buildRustPackage {
  pname = "slotvmm";
  inherit (workspace) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../clippy.toml
      ../benches
      ../cli
      ../devices
      ../docs
      ../hostnet
      ../tests
      ../vmm
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  cargoBuildFlags = [
    "--package"
    "slotvmm"
  ];
  # `--bins` leaves out the programs under cli/tests, which start processes and namespaces.
  cargoTestFlags = [
    "--package=devices"
    "--package=hostnet"
    "--package=vmm"
    "--package=slotvmm"
    "--lib"
    "--bins"
  ];

  nativeBuildInputs = [ installShellFiles ];
  postInstall = ''
    installShellCompletion --cmd slotvmm \
      --bash <($out/bin/slotvmm completion bash) \
      --fish <($out/bin/slotvmm completion fish) \
      --zsh <($out/bin/slotvmm completion zsh)
  '';

  meta = {
    description = "Runs microVMs with a fixed network identity and portable state";
    license = with lib.licenses; [
      asl20
      mit
    ];
    mainProgram = "slotvmm";
    platforms = [ "x86_64-linux" ];
  };
}
