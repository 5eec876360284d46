# The installed program accepts the example configuration.
{ runCommand, slotvmm }:

runCommand "slotvmm-config-check" { nativeBuildInputs = [ slotvmm ]; } ''
  slotvmm --config ${./example} config check | tee $out
''
