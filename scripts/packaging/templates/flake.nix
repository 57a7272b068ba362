{
  description = "@DESCRIPTION@";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      archives = {
@ARCHIVES@
      };
      package = system: archive:
        let pkgs = nixpkgs.legacyPackages.${system}; in
        pkgs.stdenvNoCC.mkDerivation {
          pname = "premigrate";
          version = "@VERSION@";
          src = pkgs.fetchurl archive;
          # The executable stays as it was built, so that `premigrate bundle` can copy it.
          dontFixup = true;
          installPhase = ''
            install -D premigrate "$out/bin/premigrate"
            install -D -m 644 man/premigrate.1 "$out/share/man/man1/premigrate.1"
            install -D -m 644 completions/premigrate.bash "$out/share/bash-completion/completions/premigrate"
            install -D -m 644 THIRD-PARTY.txt "$out/share/doc/premigrate/THIRD-PARTY.txt"
          '';
          meta = {
            description = "@DESCRIPTION@";
            homepage = "@REPOSITORY@";
            license = pkgs.lib.licenses.mit;
            mainProgram = "premigrate";
            platforms = builtins.attrNames archives;
          };
        };
    in
    {
      packages = builtins.mapAttrs (system: archive: { default = package system archive; }) archives;
    };
}
