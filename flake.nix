{
  description = "slotvmm: runs microVMs with a fixed network identity and portable state";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" ];
      forEachSystem = build: nixpkgs.lib.genAttrs systems (system: build nixpkgs.legacyPackages.${system});
    in
    {
      packages = forEachSystem (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { };
      });

      devShells = forEachSystem (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix { };
      });

      checks = forEachSystem (pkgs: {
        # Building the package runs the unit tests; this runs what was built.
        config = pkgs.callPackage ./nix/check-config.nix {
          slotvmm = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        };
      });
    };
}
