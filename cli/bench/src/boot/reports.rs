//! What a guest's service manager, or a monitor in its place, reports (sd_notify(3), and what
//! systemd adds for machines: systemd(1), `vmm.notify_socket`).

use super::Mark;

/// Most bytes of one report; systemd sends a few lines.
pub(super) const MOST: usize = 4096;

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The guest, which is ready once it says so and has reached the target, when there is one.
    Guest(Option<String>),
    /// The monitor, which knows when its guest is ready.
    Monitor,
}

/// What was reported so far.
#[derive(Debug)]
pub(super) struct Reports {
    origin: Origin,
    said_ready: bool,
    reached: bool,
}

impl Reports {
    pub(super) fn of(origin: Origin) -> Self {
        Self {
            reached: matches!(origin, Origin::Monitor | Origin::Guest(None)),
            said_ready: false,
            origin,
        }
    }

    /// Takes one report; returns the marks that it shows.
    pub(super) fn hear(&mut self, report: &[u8]) -> Vec<Mark> {
        let mut marks = Vec::new();
        let text = String::from_utf8_lossy(report);
        let is_guest = matches!(self.origin, Origin::Guest(_));
        if is_guest && text.lines().any(tells_how_far) {
            marks.push(Mark::Init);
        }
        for line in text.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => self.said_ready = true,
                Some(("X_SYSTEMD_UNIT_ACTIVE", target)) => {
                    if target == "sysinit.target" {
                        marks.push(Mark::Sysinit);
                    }
                    self.reached |= self.wants(target);
                }
                _ => {}
            }
        }
        if self.said_ready && self.reached {
            marks.push(Mark::Ready);
        }
        marks
    }

    fn wants(&self, target: &str) -> bool {
        matches!(&self.origin, Origin::Guest(Some(wanted)) if wanted == target)
    }
}

/// Whether a line says how far the guest is. systemd says earlier who it is: slotvmm does not listen to
/// that, so with other monitors it does not count either.
fn tells_how_far(line: &str) -> bool {
    match line.split_once('=') {
        Some(("READY", value)) => value == "1",
        Some(("STATUS", _)) => true,
        Some(("X_SYSTEMD_UNIT_ACTIVE", unit)) => unit.ends_with(".target"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_is_ready_when_it_says_so_and_the_target_is_reached() {
        let mut reports = Reports::of(Origin::Guest(Some("multi-user.target".to_owned())));
        let first = reports.hear(b"X_SYSTEMD_UNIT_ACTIVE=sysinit.target\nSTATUS=x");
        assert_eq!(first, [Mark::Init, Mark::Sysinit]);
        assert_eq!(reports.hear(b"READY=1"), [Mark::Init]);
        let last = reports.hear(b"X_SYSTEMD_UNIT_ACTIVE=multi-user.target\n");
        assert_eq!(last, [Mark::Init, Mark::Ready]);
    }

    #[test]
    fn what_systemd_says_of_itself_is_not_how_far_it_is() {
        let mut reports = Reports::of(Origin::Guest(None));
        assert!(reports.hear(b"X_SYSTEMD_HOSTNAME=slot1").is_empty());
        assert!(reports.hear(b"X_SYSTEMD_UNIT_ACTIVE=a.service").is_empty());
        assert_eq!(reports.hear(b"STATUS=x"), [Mark::Init]);
    }

    #[test]
    fn monitor_decides_by_itself() {
        let mut reports = Reports::of(Origin::Monitor);
        assert!(reports.hear(b"STATUS=booting").is_empty());
        assert_eq!(reports.hear(b"READY=1\nSTATUS=ready"), [Mark::Ready]);
    }

    #[test]
    fn garbage_shows_nothing() {
        let mut reports = Reports::of(Origin::Monitor);
        assert!(reports.hear(&[0xff, 0, b'=', b'\n', b'1']).is_empty());
        assert!(reports.hear(b"READY=11").is_empty());
    }
}
