//! One receive and one transmit queue on one tap, served by one thread.
//!
//! Everything is edge-triggered: a tap with frames that the driver has no buffers for stays
//! readable, and a level-triggered wait would spin on it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Burst;
use super::ring::Ring;
use super::rx::Rx;
use super::session::{PairQueues, Session};
use super::tap::Tap;
use super::tx::Tx;
use crate::fault::QueueFault;
use crate::worker::{Handler, Source};

/// What the thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// The driver added receive buffers.
    RxKick,
    /// The driver added frames to send.
    TxKick,
    /// The tap has frames, or takes frames again.
    Tap,
    /// A full burst left work behind.
    Resume,
    /// The rate limit lets frames in again.
    RxTokens,
    /// The rate limit lets frames out again.
    TxTokens,
}

impl Token {
    const ALL: [Self; 6] = [
        Self::RxKick,
        Self::TxKick,
        Self::Tap,
        Self::Resume,
        Self::RxTokens,
        Self::TxTokens,
    ];

    fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|token| *token as u32 == raw)
    }
}

/// Tokens of a pair are below this one.
pub(super) const TOKENS: u32 = 8;

/// What one direction waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Nothing: it may move frames now.
    Ready,
    /// The driver's kick.
    ForDriver,
    /// The tap.
    ForTap,
    /// The rate limit's timer.
    ForTokens,
}

/// One pair at work.
pub(super) struct Pair {
    session: Arc<Session>,
    tap: Arc<Tap>,
    rx: Rx,
    tx: Tx,
    rx_waits: Waiting,
    tx_waits: Waiting,
    resume: EventFd,
}

impl Pair {
    pub(super) fn new(
        session: Arc<Session>,
        tap: Arc<Tap>,
        queues: PairQueues,
    ) -> io::Result<Self> {
        let Session {
            memory,
            buffers,
            counters,
            limiters,
            lease,
            ..
        } = &*session;
        let rx = Ring::new(queues.rx, memory.clone());
        let tx = Ring::new(queues.tx, memory.clone());
        Ok(Self {
            rx: Rx::new(rx, *buffers, counters.clone()).with_pacer(limiters.rx_pacer()?),
            tx: Tx::new(tx, counters.clone())
                .with_pacer(limiters.tx_pacer()?)
                .with_lease(lease.clone()),
            session,
            tap,
            rx_waits: Waiting::Ready,
            tx_waits: Waiting::Ready,
            resume: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    pub(super) fn into_queues(self) -> PairQueues {
        PairQueues {
            rx: self.rx.into_queue(),
            tx: self.tx.into_queue(),
        }
    }

    /// Gives both directions a burst, as far as they are ready.
    fn turn(&mut self) {
        if self.session.is_faulted() {
            return;
        }
        if let Err(fault) = self.turn_queues() {
            self.session.fault(&fault);
        }
    }

    fn turn_queues(&mut self) -> Result<(), QueueFault> {
        if self.tx_waits == Waiting::Ready {
            self.tx_waits = match self.tx.process(&*self.tap)? {
                Burst::Idle => Waiting::ForDriver,
                Burst::Blocked => Waiting::ForTap,
                Burst::More => Waiting::Ready,
                Burst::Limited => Waiting::ForTokens,
            };
            if self.tx.ring().take_signal()? {
                self.session.interrupt.signal_queue(self.tx.queue().index);
            }
        }
        for reply in self.tx.take_replies() {
            self.rx.inject(reply);
            if self.rx_waits != Waiting::ForTokens {
                self.rx_waits = Waiting::Ready;
            }
        }
        if self.rx_waits == Waiting::Ready {
            self.rx_waits = match self.rx.process(&*self.tap)? {
                Burst::Idle => Waiting::ForTap,
                Burst::Blocked => Waiting::ForDriver,
                Burst::More => Waiting::Ready,
                Burst::Limited => Waiting::ForTokens,
            };
            if self.rx.ring().take_signal()? {
                self.session.interrupt.signal_queue(self.rx.queue().index);
            }
        }
        if [self.rx_waits, self.tx_waits].contains(&Waiting::Ready) {
            // Through the event loop, so that a stop is seen between bursts. The write only fails
            // when the counter is full, and then the event is pending already.
            let _ = self.resume.write(1);
        }
        Ok(())
    }
}

impl Handler for Pair {
    fn sources(&self) -> Vec<Source> {
        let edge = |fd: &dyn AsRawFd, token: Token, events: EventSet| Source {
            fd: fd.as_raw_fd(),
            token: token as u32,
            events: events | EventSet::EDGE_TRIGGERED,
        };
        // An eventfd reports every write once when it is edge-triggered, and needs no read then: a
        // system call less per kick.
        let mut sources = vec![
            edge(&self.rx.queue().kick, Token::RxKick, EventSet::IN),
            edge(&self.tx.queue().kick, Token::TxKick, EventSet::IN),
            edge(&*self.tap, Token::Tap, EventSet::IN | EventSet::OUT),
            edge(&self.resume, Token::Resume, EventSet::IN),
        ];
        let timers = [
            (self.rx.pacer(), Token::RxTokens),
            (self.tx.pacer(), Token::TxTokens),
        ];
        sources.extend(
            timers
                .into_iter()
                .filter_map(|(pacer, token)| pacer.map(|pacer| edge(pacer, token, EventSet::IN))),
        );
        sources
    }

    fn start(&mut self) {
        self.turn();
    }

    fn handle(&mut self, token: u32) {
        let wakes = |waits: &mut Waiting, cause: Waiting| {
            if *waits == cause {
                *waits = Waiting::Ready;
            }
        };
        match Token::from_raw(token) {
            Some(Token::RxKick) => wakes(&mut self.rx_waits, Waiting::ForDriver),
            Some(Token::TxKick) => wakes(&mut self.tx_waits, Waiting::ForDriver),
            Some(Token::Tap) => {
                wakes(&mut self.rx_waits, Waiting::ForTap);
                wakes(&mut self.tx_waits, Waiting::ForTap);
            }
            Some(Token::RxTokens) => wakes(&mut self.rx_waits, Waiting::ForTokens),
            Some(Token::TxTokens) => wakes(&mut self.tx_waits, Waiting::ForTokens),
            Some(Token::Resume) => {}
            None => return,
        }
        self.turn();
    }

    fn drain(&mut self) {
        if !self.session.is_faulted() {
            self.rx.release();
        }
    }
}
