//! The threads of a machine's vCPUs, and the requests they obey.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::exits::{Next, enter, failed};
use super::kick::Kicker;
use super::sys::{ImmediateExit, install_kick_signal};
use super::{Surroundings, Vcpu};
use crate::machine::bus::Buses;
use crate::machine::windows;
use crate::phases::Phase;

/// Why vCPU threads did not obey.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// The host refused a thread or the signal handler.
    #[error("Failed to start the thread of vCPU {vcpu}")]
    Spawn {
        /// Which one.
        vcpu: u8,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// What a vCPU thread is asked to do, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Run,
    Pause,
    Stop,
}

struct Shared {
    wanted: Mutex<Mode>,
    /// What the thread last settled on; `Stop` once it has ended.
    settled: Mutex<Mode>,
    changed: Condvar,
    settled_changed: Condvar,
    /// Whether `wanted` changed since the thread last looked: a cheap test for every exit.
    pending: AtomicBool,
    /// Whether the thread has looked since it was last asked to.
    answered: AtomicBool,
    kicker: Kicker,
}

/// All vCPU threads of a machine.
pub struct VcpuThreads {
    vcpus: Vec<(Arc<Shared>, JoinHandle<Vcpu>)>,
}

impl VcpuThreads {
    /// Starts a thread per vCPU, paused.
    ///
    /// # Errors
    /// When the host refuses a thread; those that were started end again.
    pub fn start(vcpus: Vec<Vcpu>, surroundings: &Surroundings) -> Result<Self, VcpuError> {
        install_kick_signal().map_err(|source| VcpuError::Spawn { vcpu: 0, source })?;
        let mut threads = Self { vcpus: Vec::new() };
        for vcpu in vcpus {
            let index = vcpu.index;
            let shared = Arc::new(Shared {
                wanted: Mutex::new(Mode::Pause),
                settled: Mutex::new(Mode::Pause),
                changed: Condvar::new(),
                settled_changed: Condvar::new(),
                pending: AtomicBool::new(true),
                answered: AtomicBool::new(true),
                kicker: Kicker::default(),
            });
            let (in_thread, surroundings) = (shared.clone(), surroundings.clone());
            let spawned = thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || run(vcpu, &in_thread, &surroundings));
            match spawned {
                Ok(thread) => threads.vcpus.push((shared, thread)),
                Err(source) => {
                    threads.stop();
                    return Err(VcpuError::Spawn {
                        vcpu: index,
                        source,
                    });
                }
            }
        }
        Ok(threads)
    }

    /// Lets every vCPU run.
    pub fn resume(&self) {
        self.ask(Mode::Run);
    }

    /// Takes every vCPU out of the guest; returns when all of them wait.
    pub fn pause(&self) {
        self.ask(Mode::Pause);
        for (shared, _) in &self.vcpus {
            let settled = shared
                .settled
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            drop(
                shared
                    .settled_changed
                    .wait_while(settled, |mode| *mode == Mode::Run)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// Asks every thread for a sign of life. One that runs its guest, or serves an exit, gives it
    /// as soon as it looks for requests.
    pub fn probe(&self) {
        for (shared, _) in &self.vcpus {
            let wanted = shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            shared.answered.store(false, Ordering::SeqCst);
            shared.request(&wanted);
        }
    }

    /// The first vCPU whose thread has not answered the last [`probe`](Self::probe). A paused one
    /// does not.
    pub fn silent(&self) -> Option<usize> {
        let answered = |shared: &Shared| shared.answered.load(Ordering::SeqCst);
        self.vcpus.iter().position(|(shared, _)| !answered(shared))
    }

    /// Ends every thread and returns the vCPUs; one whose thread panicked is missing.
    pub fn stop(self) -> Vec<Vcpu> {
        self.ask(Mode::Stop);
        self.vcpus
            .into_iter()
            .filter_map(|(_, thread)| thread.join().ok())
            .collect()
    }

    fn ask(&self, mode: Mode) {
        for (shared, _) in &self.vcpus {
            // All under one lock, the one that `obey` takes the kick back under: a kick that came
            // after would keep the vCPU out of the guest for good.
            let mut wanted = shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            *wanted = mode;
            shared.request(&wanted);
        }
    }
}

impl Shared {
    /// Makes the thread look at what is wanted. The caller holds the lock of that: see
    /// [`VcpuThreads::ask`].
    fn request(&self, _wanted: &MutexGuard<'_, Mode>) {
        self.pending.store(true, Ordering::SeqCst);
        self.changed.notify_all();
        self.kicker.kick();
    }
}

/// The body of a vCPU thread.
fn run(mut vcpu: Vcpu, shared: &Shared, surroundings: &Surroundings) -> Vcpu {
    shared.kicker.arm(ImmediateExit::of(&mut vcpu.fd));
    let mut next = Next::Interrupted;
    let mut missing = 0;
    loop {
        missing = if matches!(next, Next::Missing) {
            missing + 1
        } else {
            0
        };
        match next {
            Next::Enter => {}
            Next::Missing if missing <= MAX_MISSING => repair(&surroundings.buses),
            Next::Missing => {
                let reason = "KVM_RUN: memory of the guest cannot be read".to_owned();
                next = failed(vcpu.index, reason);
                continue;
            }
            Next::Interrupted => {
                if shared.pending.load(Ordering::SeqCst)
                    && obey(&mut vcpu, shared, surroundings) == Mode::Stop
                {
                    break;
                }
            }
            Next::End(event) => {
                surroundings.events.send(event);
                // Nothing is left to run; only a stop ends the wait.
                wait_for_stop(shared);
                break;
            }
        }
        next = enter(vcpu.index, &mut vcpu.fd, &surroundings.buses);
    }
    shared.kicker.disarm();
    settle(shared, Mode::Stop);
    vcpu
}

/// How often in a row a vCPU may find no memory. A file of the host that is truncated and written
/// again explains some; storage that cannot be read never ends.
const MAX_MISSING: u32 = 64;

/// Shows zeroes where files that are mapped for the guest have become shorter.
fn repair(buses: &Buses) {
    match windows::repair(&buses.windows) {
        Ok(0) => {}
        Ok(places) => tracing::warn!(
            places,
            "Files of a share became shorter under the guest, which sees zeroes in their place"
        ),
        Err(error) => tracing::error!(%error, "The window of a share was not repaired"),
    }
}

/// Waits while the machine is paused and returns what to do next: run or stop.
fn obey(vcpu: &mut Vcpu, shared: &Shared, surroundings: &Surroundings) -> Mode {
    let mut wanted = shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
    if *wanted == Mode::Pause {
        // Tells the guest's watchdogs that it was stopped; fails when the guest has no kvmclock.
        let _ = vcpu.fd.kvmclock_ctrl();
        settle(shared, Mode::Pause);
        wanted = shared
            .changed
            .wait_while(wanted, |mode| *mode == Mode::Pause)
            .unwrap_or_else(PoisonError::into_inner);
    }
    // Cleared under the lock: a request after this sets both again.
    shared.pending.store(false, Ordering::SeqCst);
    shared.answered.store(true, Ordering::SeqCst);
    vcpu.fd.set_kvm_immediate_exit(0);
    let mode = *wanted;
    // Still under the lock, or a pause that comes now could see a stale `Pause`.
    settle(shared, mode);
    drop(wanted);
    if mode == Mode::Run {
        surroundings.phases.stamp(Phase::VcpuRun);
    }
    mode
}

fn settle(shared: &Shared, mode: Mode) {
    *shared
        .settled
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = mode;
    shared.settled_changed.notify_all();
}

fn wait_for_stop(shared: &Shared) {
    settle(shared, Mode::Pause);
    let wanted = shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
    drop(
        shared
            .changed
            .wait_while(wanted, |mode| *mode != Mode::Stop)
            .unwrap_or_else(PoisonError::into_inner),
    );
}
