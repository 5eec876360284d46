//! `net`: the slots' network on the host. Looks, plans and does through `hostnet`.

mod change;
mod status;
mod wanted;

use super::{CommandError, Context};
use crate::args::NetCommand;
use crate::exit::Exit;
use crate::output::print_text;

use self::change::Mode;
pub(super) use self::change::ensure;
use self::wanted::Wanted;

/// Dispatches `net`.
pub(super) fn net(command: &NetCommand, context: &Context) -> Result<Exit, CommandError> {
    match command {
        NetCommand::Apply {
            slots,
            user,
            dry_run,
        } => {
            let wanted = Wanted::of(slots, user.as_deref(), context)?;
            change::apply(&wanted, Mode::of(*dry_run), context)
        }
        NetCommand::Plan { slots, user } => {
            let wanted = Wanted::of(slots, user.as_deref(), context)?;
            change::apply(&wanted, Mode::Say, context)
        }
        NetCommand::Down { slots, dry_run } => change::down(slots, Mode::of(*dry_run), context),
        NetCommand::Status { slots } => status::status(slots, context),
        NetCommand::Print { slots } => {
            let wanted = Wanted::of(slots, None, context)?;
            let text = hostnet::ruleset::text(&wanted.host, &wanted.slots);
            print_text(&text).map_err(CommandError::on("print the rules"))?;
            Ok(Exit::Success)
        }
    }
}
