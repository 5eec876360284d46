//! What a VMM asks before it starts: is the network of its slot there? Cheap, and needs no
//! privilege: it reads links, one setting and the journal. The rules themselves are not listed,
//! since that takes a privilege and another process.

use crate::facts::{self, Fact};
use crate::inspect::{LinkKind, Observed};
use crate::journal::JournalDir;
use crate::plan::World;
use crate::policy::{HostSpec, SlotSpec};
use crate::world::{WorldError, look};

/// What the network of a slot lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacks {
    /// Facts about bridge and tap that are not as they should be; without them no packet passes.
    pub links: Vec<Fact>,
    /// Whether `net apply` never loaded rules for this slot.
    pub rules: bool,
}

impl Lacks {
    /// Whether nothing is missing.
    pub fn nothing(&self) -> bool {
        self.links.is_empty() && !self.rules
    }
}

/// Compares the network of `slot` with what it should be. Whom the tap belongs to, and how it was
/// made, is not compared: opening it tells, and any user or form may be right.
///
/// # Errors
/// When the kernel does not answer, or the journal cannot be read.
pub fn check(slot: &SlotSpec, journal: &JournalDir) -> Result<Lacks, WorldError> {
    let host = HostSpec::default();
    let World { journal, links, .. } = look(&host, std::slice::from_ref(slot), journal)?;
    let nothing = Observed::default();
    let observed = links.get(&slot.name).unwrap_or(&nothing);
    let mut wanted = slot.clone();
    let mut seen = observed.clone();
    if let Some(tap) = &mut seen.tap
        && let LinkKind::Tap { owner, flags } = &mut tap.kind
    {
        wanted.owner = owner.unwrap_or(0);
        *owner = Some(wanted.owner);
        *flags = crate::inspect::TapFlags::OURS;
    }
    let links = facts::of_links(&wanted, &seen);
    Ok(Lacks {
        links: links.into_iter().filter(|fact| fact.drift).collect(),
        rules: !journal.slots.contains_key(&slot.name),
    })
}
