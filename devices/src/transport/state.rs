//! The saved state of a transport. Untrusted when it is read back; the transport checks it.

use serde::{Deserialize, Serialize};
use virtio_queue::QueueT;

use super::mmio::{Activity, MmioTransport};
use super::registers as reg;
use super::status::{self, DEVICE_NEEDS_RESET, DRIVER_OK, FEATURES_OK};
use crate::device::ActiveQueue;
use crate::state::StateError;

/// Version of the layout of [`TransportState`].
pub const TRANSPORT_STATE_VERSION: u16 = 2;

/// Everything a driver set up on one device, and how far its queues are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// Device status register.
    pub status: u32,
    /// Interrupt status register.
    pub interrupt: u32,
    /// Configuration generation register.
    pub config_generation: u32,
    /// Features the driver wrote; agreed on once the status has `FEATURES_OK`.
    pub driver_features: u64,
    /// Which half of the offered features the driver reads.
    pub device_features_sel: u32,
    /// Which half of the accepted features the driver writes.
    pub driver_features_sel: u32,
    /// Which queue the queue registers speak about.
    pub queue_sel: u32,
    /// Which region of shared memory the driver reads about.
    pub shm_sel: u32,
    /// The registers of each queue of the device, by index.
    pub queues: Vec<QueueRegisters>,
    /// Positions of the queues in use when the device was stopped, ascending by index; nothing
    /// when it had not been started.
    pub running: Option<Vec<QueuePosition>>,
}

/// What the driver wrote into the registers of one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRegisters {
    /// Number of descriptors; 0 until written.
    pub size: u32,
    /// Whether the driver declared the queue configured.
    pub ready: bool,
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Guest address of the available ring.
    pub available: u64,
    /// Guest address of the used ring.
    pub used: u64,
}

/// How far a queue in use is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePosition {
    /// Index of the queue.
    pub index: u16,
    /// Next entry of the available ring to take.
    pub next_avail: u16,
    /// Next entry of the used ring to fill.
    pub next_used: u16,
}

impl MmioTransport {
    /// The state of the registers and the positions of the queues; the device saves its own.
    ///
    /// # Errors
    /// When the device runs.
    pub fn save(&self) -> Result<TransportState, StateError> {
        let running = match &self.activity {
            Activity::Active => return Err(StateError::Active),
            Activity::Idle => None,
            Activity::Paused(queues) => Some(queues.iter().map(QueuePosition::of).collect()),
        };
        let live = self.shared.live();
        Ok(TransportState {
            status: live.status,
            interrupt: live.interrupt,
            config_generation: live.config_generation,
            driver_features: self.driver_features,
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            queue_sel: self.queue_sel,
            shm_sel: self.shm_sel,
            queues: self.queues.iter().map(|slot| slot.registers).collect(),
            running,
        })
    }

    /// Takes over a saved state, on a transport that no driver has touched. A device that ran
    /// when it was saved starts with [`resume`](Self::resume).
    ///
    /// # Errors
    /// When a field contradicts another one, the device or guest memory, or the host refuses an
    /// eventfd (reported as `kick`). The transport is as before then.
    pub fn restore(&mut self, state: &TransportState) -> Result<(), StateError> {
        let invalid = |field| StateError::Invalid {
            kind: "transport",
            field,
        };
        if !matches!(self.activity, Activity::Idle) {
            return Err(StateError::Active);
        }
        if !status::is_legal(state.status) {
            return Err(invalid("status"));
        }
        let agreed = state.status & FEATURES_OK != 0;
        if agreed && !self.acceptable(state.driver_features) {
            return Err(invalid("driver_features"));
        }
        if state.interrupt & !(reg::INTERRUPT_USED | reg::INTERRUPT_CONFIG) != 0 {
            return Err(invalid("interrupt"));
        }
        if state.queues.len() != self.queues.len() {
            return Err(invalid("queues"));
        }
        if !agreed && state.queues.iter().any(|queue| queue.ready) {
            return Err(invalid("queues"));
        }
        let activity = match &state.running {
            None => Activity::Idle,
            Some(_) if state.status & DRIVER_OK == 0 => return Err(invalid("running")),
            Some(positions) => Activity::Paused(self.restore_queues(state, positions)?),
        };
        if matches!(activity, Activity::Idle)
            && state.status & (DRIVER_OK | DEVICE_NEEDS_RESET) == DRIVER_OK
        {
            return Err(invalid("running"));
        }

        self.driver_features = state.driver_features;
        self.device_features_sel = state.device_features_sel;
        self.driver_features_sel = state.driver_features_sel;
        self.queue_sel = state.queue_sel;
        self.shm_sel = state.shm_sel;
        for (slot, registers) in self.queues.iter_mut().zip(&state.queues) {
            slot.registers = *registers;
        }
        self.activity = activity;
        self.show_selected();
        self.shared.change(|live| {
            live.status = state.status;
            live.interrupt = state.interrupt;
            live.config_generation = state.config_generation;
        });
        Ok(())
    }

    fn restore_queues(
        &self,
        state: &TransportState,
        positions: &[QueuePosition],
    ) -> Result<Vec<ActiveQueue>, StateError> {
        let invalid = |field| StateError::Invalid {
            kind: "transport",
            field,
        };
        let ready = (0..).zip(&state.queues).filter(|(_, queue)| queue.ready);
        if !ready
            .map(|(index, _)| index)
            .eq(positions.iter().map(|position| position.index))
        {
            return Err(invalid("running"));
        }
        let mut queues = Vec::with_capacity(positions.len());
        for position in positions {
            let index = usize::from(position.index);
            let (Some(slot), Some(registers)) = (self.queues.get(index), state.queues.get(index))
            else {
                return Err(invalid("running"));
            };
            let mut queue = slot
                .build(
                    position.index,
                    registers,
                    &self.memory,
                    state.driver_features,
                )
                .map_err(|_| invalid("queues"))?;
            queue.queue.set_next_avail(position.next_avail);
            queue.queue.set_next_used(position.next_used);
            queues.push(queue);
        }
        Ok(queues)
    }
}

impl QueuePosition {
    fn of(queue: &ActiveQueue) -> Self {
        Self {
            index: queue.index,
            next_avail: queue.queue.next_avail(),
            next_used: queue.queue.next_used(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_one_of_its_version() {
        let queue = QueueRegisters {
            size: 9,
            ready: true,
            descriptors: 10,
            available: 11,
            used: 12,
        };
        let state = TransportState {
            status: 1,
            interrupt: 2,
            config_generation: 3,
            driver_features: 4,
            device_features_sel: 5,
            driver_features_sel: 6,
            queue_sel: 7,
            shm_sel: 8,
            queues: vec![queue],
            running: Some(vec![QueuePosition {
                index: 13,
                next_avail: 14,
                next_used: 15,
            }]),
        };
        // Another layout is another version: saved states of this one are still about.
        let bytes = postcard::to_stdvec(&state).unwrap();
        let registers = [1, 9, 1, 10, 11, 12];
        let expected = [
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &registers[..],
            &[1, 1, 13, 14, 15],
        ]
        .concat();
        assert_eq!((TRANSPORT_STATE_VERSION, bytes), (2, expected));
    }
}
