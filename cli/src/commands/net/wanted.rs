//! From the configuration to what the network should be. Only what concerns the network must be
//! right for that: it is made before there is anything to boot.

use hostnet::inspect::uplink;
use hostnet::journal::JournalDir;
use hostnet::policy::{HostSpec, SlotSpec};
use hostnet::slot::SlotName;

use super::super::{CommandError, Context, name};
use crate::config::{ConfigError, HostFile, LoadedSlot};
use crate::resolve::{self, Paths, network};

/// Where users are looked up by name.
const USERS: &str = "/etc/passwd";

/// What the network should be.
#[derive(Debug)]
pub(super) struct Wanted {
    /// What slots share.
    pub(super) host: HostSpec,
    /// The slots that were asked for, or all that are configured and have a network.
    pub(super) slots: Vec<SlotSpec>,
    /// Where it is remembered what was done.
    pub(super) journal: JournalDir,
}

impl Wanted {
    /// Reads every slot's file, since none may take what another has; keeps those that `names`
    /// has, or all when it is empty. `user` overrides whom the taps belong to.
    pub(super) fn of(
        names: &[String],
        user: Option<&str>,
        context: &Context,
    ) -> Result<Self, CommandError> {
        let file = context.config.host()?;
        let owner = owner(&file, user)?;
        let mut slots = Vec::new();
        for name in asked(names, context)? {
            let loaded = match context.config.slot(&name.slot) {
                Ok(loaded) => loaded,
                Err(error) => {
                    name.left_out(error)?;
                    continue;
                }
            };
            match spec(&file, &loaded, owner) {
                Ok(Some(spec)) => slots.push((name, loaded, spec)),
                Ok(None) if name.explicit => {
                    return Err(CommandError::NoBridge { slot: name.slot });
                }
                Ok(None) => {}
                Err(error) => name.left_out(error)?,
            }
        }
        let mut problems = network::check_host(&file);
        let both: Vec<_> = slots
            .iter()
            .map(|(_, loaded, spec)| (loaded, spec))
            .collect();
        problems.extend(network::across(&both));
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { problems }.into());
        }
        let slots = slots.into_iter().filter(|(name, ..)| name.wanted);
        Ok(Self {
            host: host(&file)?,
            slots: slots.map(|(_, _, spec)| spec).collect(),
            journal: JournalDir::new(Paths::of(&file).net_dir),
        })
    }
}

/// A slot whose file is read.
struct Asked {
    slot: SlotName,
    /// Whether something is to be done about it.
    wanted: bool,
    /// Whether it was named.
    explicit: bool,
}

impl Asked {
    /// A slot that is not asked for must not keep the others from their network.
    fn left_out(&self, error: ConfigError) -> Result<(), CommandError> {
        if self.wanted {
            return Err(error.into());
        }
        tracing::warn!("Left out {}: {error}", self.slot);
        Ok(())
    }
}

fn asked(names: &[String], context: &Context) -> Result<Vec<Asked>, CommandError> {
    let named: Vec<SlotName> = names
        .iter()
        .map(|text| name(text))
        .collect::<Result<_, _>>()?;
    let configured = context.config.slot_names()?;
    let mut all: Vec<Asked> = configured
        .into_iter()
        .map(|slot| Asked {
            wanted: named.is_empty() || named.contains(&slot),
            explicit: named.contains(&slot),
            slot,
        })
        .collect();
    for slot in named {
        if !all.iter().any(|asked| asked.slot == slot) {
            all.push(Asked {
                slot,
                wanted: true,
                explicit: true,
            });
        }
    }
    Ok(all)
}

fn spec(file: &HostFile, loaded: &LoadedSlot, owner: u32) -> Result<Option<SlotSpec>, ConfigError> {
    let (network, nics) = resolve::network(file, loaded)?;
    Ok(network.spec(&nics, owner))
}

/// What slots share, with the uplink that the default route has when none is configured.
pub(super) fn host(file: &HostFile) -> Result<HostSpec, CommandError> {
    let mut host = network::host_spec(file);
    if host.uplink.is_none() {
        host.uplink = uplink()?;
    }
    Ok(host)
}

/// Whom taps belong to.
pub(super) fn owner(file: &HostFile, user: Option<&str>) -> Result<u32, CommandError> {
    let configured = file.net.user.as_ref().map(|user| user.value.as_str());
    user.or(configured).map_or(Ok(0), uid)
}

/// The number of a user given by number or name.
fn uid(user: &str) -> Result<u32, CommandError> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    // Not by the C library: linked statically, it cannot load what asks other user databases.
    let users = std::fs::read_to_string(USERS).map_err(CommandError::on("read /etc/passwd"))?;
    find_user(&users, user).ok_or_else(|| CommandError::NoUser {
        user: user.to_owned(),
    })
}

/// The number of a user in the text of a user database (passwd(5)).
fn find_user(users: &str, name: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        fields.nth(1)?.parse().ok().filter(|_| found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\nmicrovm2:x:7\n\nmicrovm\nmicrovm:x:y:\nmicrovm:x:993:992::/:\n";
        assert_eq!(find_user(users, "root"), Some(0));
        assert_eq!(find_user(users, "microvm"), Some(993));
        assert_eq!(find_user(users, "micro"), None);
        assert_eq!(find_user(users, ""), None);
    }
}
