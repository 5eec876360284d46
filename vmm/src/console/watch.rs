//! Watching guest output for the few lines that mean something to the host.

use std::sync::Arc;

use crate::events::{Event, EventSender};
use crate::phases::{Phase, Phases};
use crate::readiness::Board;

/// What every Linux kernel prints first when it panics.
const PANIC: &str = "Kernel panic - not syncing";
/// What Linux prints, unless it is told to be quiet, when it starts its init process.
const INIT: &str = "Run /";
const INIT_END: &str = " as init process";

/// Longest line that is looked at; the rest of a longer one is ignored.
const LINE: usize = 512;

/// Reads lines as they pass.
pub(super) struct Watch {
    line: Vec<u8>,
    spoken: bool,
    events: EventSender,
    phases: Arc<Phases>,
    board: Arc<Board>,
    /// What makes the guest ready, until it was seen.
    wanted: Option<Vec<u8>>,
}

impl Watch {
    pub(super) fn new(events: EventSender, phases: Arc<Phases>, board: Arc<Board>) -> Self {
        Self {
            line: Vec::with_capacity(LINE),
            spoken: false,
            events,
            phases,
            wanted: board.console_text(),
            board,
        }
    }

    pub(super) fn see(&mut self, bytes: &[u8]) {
        if !self.spoken && !bytes.is_empty() {
            self.spoken = true;
            self.phases.stamp(Phase::FirstSerialByte);
        }
        for byte in bytes {
            match byte {
                b'\n' => self.line_ends(),
                _ if self.line.len() < LINE => {
                    self.line.push(*byte);
                    self.look_for_wanted();
                }
                _ => {}
            }
        }
    }

    /// At every byte: what is waited for is often a prompt, and no line break follows it.
    fn look_for_wanted(&mut self) {
        let line = &self.line;
        if self.wanted.take_if(|text| line.ends_with(text)).is_some() {
            self.board.met();
        }
    }

    fn line_ends(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if line.contains(PANIC) {
            self.events.send(Event::GuestPanic);
        } else if line.contains(INIT) && line.contains(INIT_END) {
            self.phases.stamp(Phase::Init);
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::events::{EventQueue, event_channel};
    use crate::readiness::Criterion;

    fn watch() -> (Watch, EventQueue, Arc<Phases>) {
        let phases = Arc::new(Phases::since(Instant::now()));
        let (events, queue) = event_channel(phases.clone()).unwrap();
        let login = Criterion::Console("login: ".to_owned());
        let board = Board::new(login, None, phases.clone()).unwrap();
        let watch = Watch::new(events, phases.clone(), Arc::new(board));
        (watch, queue, phases)
    }

    #[test]
    fn prompt_that_is_waited_for_makes_the_guest_ready() {
        let (mut watch, _queue, phases) = watch();
        let ready = |phases: &Phases| phases.stamps().iter().any(|s| s.phase == Phase::Ready);
        watch.see(b"Welcome\r\nlast login: never\n"[..14].as_ref());
        assert!(!ready(&phases));
        watch.see(b"\r\nslot1 log");
        assert!(!ready(&phases));
        watch.see(b"in: ");
        assert!(ready(&phases));
    }

    #[test]
    fn panic_line_is_reported_however_it_arrives() {
        let (mut watch, queue, _) = watch();
        for byte in b"[    1.0] Kernel panic - not syncing: Fatal exception\r\n" {
            watch.see(&[*byte]);
        }
        assert!(matches!(queue.queue.try_recv(), Ok(Event::GuestPanic)));
        assert!(queue.queue.try_recv().is_err());
    }

    #[test]
    fn init_line_stamps_the_phase() {
        let (mut watch, _queue, phases) = watch();
        watch.see(b"[    0.5] Run /init as init process\n");
        let stamped: Vec<Phase> = phases.stamps().iter().map(|s| s.phase).collect();
        assert!(stamped.contains(&Phase::FirstSerialByte) && stamped.contains(&Phase::Init));
    }

    #[test]
    fn endless_line_takes_bounded_memory() {
        let (mut watch, _queue, _) = watch();
        watch.see(&vec![b'x'; 1 << 20]);
        assert_eq!(watch.line.capacity(), LINE);
    }
}
