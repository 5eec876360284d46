//! Checks on a machine's configuration before anything is built.

use std::collections::BTreeMap;

use devices::device::DeviceId;
use devices::registry::{DeviceConfig, MAX_POSITION};

use crate::config::{MAX_VCPUS, VmConfig};
use crate::machine::windows;
use crate::memory::layout::{MAX_RAM_MIB, MIN_RAM_MIB};

/// Why a configuration describes no machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Too many or no vCPUs.
    #[error("{vcpus} vCPUs are out of range, expected 1 to {MAX_VCPUS}")]
    Vcpus {
        /// What was asked for.
        vcpus: u8,
    },
    /// Too much or too little RAM.
    #[error("{mib} MiB of RAM are out of range, expected {MIN_RAM_MIB} to {MAX_RAM_MIB}")]
    Memory {
        /// What was asked for.
        mib: u64,
    },
    /// A position that does not exist.
    #[error("Device {id}: position {position} is out of range, expected 0 to {MAX_POSITION}")]
    Position {
        /// The device.
        id: DeviceId,
        /// What was asked for.
        position: u8,
    },
    /// Two devices in one place.
    #[error(
        "Devices {first} and {second} are both at position {position}; give one of them another"
    )]
    SamePosition {
        /// The position.
        position: u8,
        /// One device.
        first: DeviceId,
        /// The other.
        second: DeviceId,
    },
    /// Two shares of one tag: the guest could mount only one of them.
    #[error("Devices {first} and {second} both have the tag {tag:?}; give one of them another")]
    SameTag {
        /// The tag.
        tag: String,
        /// One device.
        first: DeviceId,
        /// The other.
        second: DeviceId,
    },
    /// Windows of shares beyond what a processor addresses.
    #[error(
        "RAM and windows of shares (`dax`) end at {end:#x}, expected at most {MAX_ADDRESS:#x}; make them smaller"
    )]
    Windows {
        /// Where they end.
        end: u64,
    },
    /// Two devices of one name.
    #[error("Two devices are named {id}")]
    SameName {
        /// The name.
        id: DeviceId,
    },
}

/// End of what every processor with hardware virtualisation addresses: 40 bits.
const MAX_ADDRESS: u64 = 1 << 40;

impl VmConfig {
    /// Checks what a machine cannot be built without.
    ///
    /// # Errors
    /// Names the first thing that is out of range or there twice.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(ConfigError::Vcpus { vcpus: self.vcpus });
        }
        if !(MIN_RAM_MIB..=MAX_RAM_MIB).contains(&self.memory_mib) {
            return Err(ConfigError::Memory {
                mib: self.memory_mib,
            });
        }
        let ends = windows::places(self).map(|(_, start, bytes)| start.saturating_add(bytes));
        if let Some(end) = ends.max().filter(|end| *end > MAX_ADDRESS) {
            return Err(ConfigError::Windows { end });
        }
        let mut places = BTreeMap::new();
        let mut names = BTreeMap::new();
        let mut tags = BTreeMap::new();
        for device in &self.devices {
            let (id, position) = (device.id().clone(), device.position().0);
            if position > MAX_POSITION {
                return Err(ConfigError::Position { id, position });
            }
            if let Some(first) = places.insert(position, id.clone()) {
                let second = id;
                return Err(ConfigError::SamePosition {
                    position,
                    first,
                    second,
                });
            }
            if names.insert(id.clone(), ()).is_some() {
                return Err(ConfigError::SameName { id });
            }
            if let DeviceConfig::Fs(fs) = device
                && let Some(first) = tags.insert(&fs.tag, id.clone())
            {
                return Err(ConfigError::SameTag {
                    tag: fs.tag.clone(),
                    first,
                    second: id,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use devices::fs::{FsConfig, OnExit};
    use devices::registry::Position;
    use devices::rng::RngConfig;
    use uuid::Uuid;

    use super::*;
    use crate::boot::{BootConfig, BootSource};
    use crate::config::{Discovery, RegisterReads};

    fn config(devices: &[(&str, u8)]) -> VmConfig {
        VmConfig {
            name: "slot1".to_owned(),
            vcpus: 1,
            memory_mib: 256,
            uuid: Uuid::nil(),
            oem_strings: Vec::new(),
            boot: BootConfig {
                source: BootSource::Files {
                    kernel: "/kernel".into(),
                    initrd: None,
                },
                params: Vec::new(),
                defaults: Vec::new(),
                init: None,
                cache_dir: None,
            },
            discovery: Discovery::Acpi,
            registers: RegisterReads::default(),
            devices: devices
                .iter()
                .map(|(id, position)| {
                    DeviceConfig::Rng(RngConfig {
                        id: DeviceId::new(*id),
                        position: Position(*position),
                    })
                })
                .collect(),
        }
    }

    #[test]
    fn good_configuration_passes() {
        assert_eq!(config(&[("rng0", 9), ("rng1", 15)]).validate(), Ok(()));
    }

    #[test]
    fn each_mistake_is_named() {
        let no_vcpus = VmConfig {
            vcpus: 0,
            ..config(&[])
        };
        assert_eq!(no_vcpus.validate(), Err(ConfigError::Vcpus { vcpus: 0 }));
        let no_ram = VmConfig {
            memory_mib: 0,
            ..config(&[])
        };
        assert_eq!(no_ram.validate(), Err(ConfigError::Memory { mib: 0 }));
        let far = config(&[("rng0", 16)]).validate();
        assert!(matches!(
            far,
            Err(ConfigError::Position { position: 16, .. })
        ));
        let same_place = config(&[("rng0", 3), ("rng1", 3)]).validate();
        assert!(matches!(
            same_place,
            Err(ConfigError::SamePosition { position: 3, .. })
        ));
        let same_name = config(&[("rng0", 3), ("rng0", 4)]).validate();
        assert!(matches!(same_name, Err(ConfigError::SameName { .. })));
    }
    #[test]
    fn tags_are_unique() {
        let share = |id: &str, position| {
            DeviceConfig::Fs(FsConfig {
                id: DeviceId::new(id),
                position: Position(position),
                tag: "ro-store".to_owned(),
                queues: 1,
                window: None,
                on_exit: OnExit::Fail,
            })
        };
        let config = VmConfig {
            devices: vec![share("fs0", 3), share("fs1", 4)],
            ..config(&[])
        };
        assert!(matches!(
            config.validate(),
            Err(ConfigError::SameTag { .. })
        ));
    }
}
