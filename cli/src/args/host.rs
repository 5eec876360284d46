//! The verbs about this host: `doctor`, `completion`.

use clap::Args;

// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: slots can run here. 30: the configuration is wrong. 31: something is missing.
33: KVM cannot run guests here.

Examples:
  slotvmm doctor
  slotvmm doctor slot1       also check what slot1 needs"
)]
pub(crate) struct Doctor {
    /// Name of a slot to check as well
    pub(crate) slot: Option<String>,
}

// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  slotvmm completion bash > /etc/bash_completion.d/slotvmm")]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
