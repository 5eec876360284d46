//! Every connection, by a number that is never used again and by its ports.

use std::collections::{BTreeMap, HashMap};

use super::MAX_CONNECTIONS;
use super::connection::{Connection, Ports};

/// Connections and who they are.
#[derive(Default)]
pub(super) struct Table {
    connections: BTreeMap<u64, Connection>,
    /// Those that the guest knows of. One that it reset may still have bytes for its endpoint, and
    /// is not in here.
    ids: HashMap<Ports, u64>,
}

impl Table {
    pub(super) fn is_full(&self) -> bool {
        self.connections.len() >= MAX_CONNECTIONS
    }

    pub(super) fn id_of(&self, ports: Ports) -> Option<u64> {
        self.ids.get(&ports).copied()
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    /// Adds a connection whose ports no other has.
    pub(super) fn insert(&mut self, id: u64, connection: Connection) {
        self.ids.insert(connection.ports, id);
        self.connections.insert(id, connection);
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.forget_ports(id);
        self.connections.remove(&id);
    }

    /// Whether the guest knows of the connection.
    pub(super) fn is_known(&self, id: u64) -> bool {
        self.connections
            .get(&id)
            .is_some_and(|connection| self.id_of(connection.ports) == Some(id))
    }

    /// Lets the guest use the ports again.
    pub(super) fn forget_ports(&mut self, id: u64) {
        if self.is_known(id)
            && let Some(connection) = self.connections.get(&id)
        {
            self.ids.remove(&connection.ports);
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.connections
            .values()
            .filter(|connection| connection.is_session())
            .count()
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn clear(&mut self) {
        self.connections.clear();
        self.ids.clear();
    }
}
