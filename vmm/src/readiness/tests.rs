use std::time::{Duration, Instant};

use devices::notify::{Report, Shutdown};

use super::watch::Teller;
use super::*;

fn active(target: &str) -> Report {
    Report::Active(target.parse().unwrap())
}

fn inactive(target: &str) -> Report {
    Report::Inactive(target.parse().unwrap())
}

fn multi_user() -> Criterion {
    Criterion::Notify(TargetGoal::Reached("multi-user.target".parse().unwrap()))
}

fn after(criterion: Criterion, reports: impl IntoIterator<Item = Report>) -> Readiness {
    let mut readiness = Readiness::new(criterion, Some(Duration::from_secs(300)));
    for report in reports {
        readiness.hear(report);
    }
    readiness
}

#[test]
fn ready_needs_both_the_word_and_the_target_in_any_order() {
    let target = || active("multi-user.target");
    for (reports, state) in [
        (vec![], ReadyState::Booting),
        (vec![Report::Ready], ReadyState::Booting),
        (vec![target()], ReadyState::Booting),
        (
            vec![Report::Ready, active("basic.target")],
            ReadyState::Booting,
        ),
        (vec![Report::Ready, target()], ReadyState::Ready),
        (vec![target(), Report::Ready], ReadyState::Ready),
    ] {
        assert_eq!(
            after(multi_user(), reports.clone()).state(),
            state,
            "{reports:?}"
        );
    }
}

#[test]
fn emergency_mode_is_not_ready_although_systemd_says_so() {
    let emergency = after(multi_user(), [active("emergency.target"), Report::Ready]);
    assert_eq!(emergency.state(), ReadyState::Emergency);
    let status = "not ready: the guest is in emergency.target, see its console";
    assert_eq!(emergency.status(), status);
    let left = after(
        multi_user(),
        [
            active("rescue.target"),
            Report::Ready,
            inactive("rescue.target"),
            active("multi-user.target"),
        ],
    );
    assert_eq!(left.state(), ReadyState::Ready);
}

#[test]
fn a_target_that_goes_again_before_the_word_does_not_count() {
    let gone = [
        active("multi-user.target"),
        inactive("multi-user.target"),
        Report::Ready,
    ];
    assert_eq!(after(multi_user(), gone).state(), ReadyState::Booting);
}

#[test]
fn a_guest_on_its_way_out_is_stopping_and_says_how() {
    let reports = [
        Report::Ready,
        active("multi-user.target"),
        inactive("multi-user.target"),
    ];
    let mut guest = after(multi_user(), reports);
    assert_eq!(guest.state(), ReadyState::Ready);
    guest.hear(active("shutdown.target"));
    assert_eq!(guest.state(), ReadyState::Stopping);
    assert_eq!(guest.shutdown(), None);
    guest.hear(Report::ExitStatus(3));
    guest.hear(Report::Shutdown(Shutdown::Reboot));
    assert_eq!(guest.shutdown(), Some(Shutdown::Reboot));
    assert_eq!(guest.info().exit_status, Some(3));
    assert_eq!(guest.status(), "stopping with exit status 3");
}

#[test]
fn why_a_guest_did_not_get_ready_outlasts_its_end() {
    let mut guest = after(multi_user(), []);
    guest.time_out();
    let status = guest.status();
    guest.hear(active("shutdown.target"));
    guest.hear(Report::Shutdown(Shutdown::Poweroff));
    assert_eq!(guest.state(), ReadyState::TimedOut);
    assert!(status.starts_with("not ready") && guest.status().starts_with("not ready"));
    assert_eq!(guest.shutdown(), Some(Shutdown::Poweroff));
}

#[test]
fn another_kernel_begins_anew() {
    let reports = [
        Report::Ready,
        active("multi-user.target"),
        active("shutdown.target"),
        Report::Shutdown(Shutdown::Kexec),
    ];
    assert_eq!(after(multi_user(), reports).state(), ReadyState::Booting);
}

#[test]
fn only_the_criterion_that_was_chosen_counts() {
    let word = [Report::Ready, active("multi-user.target")];
    let console = || Criterion::Console("login:".to_owned());
    assert_eq!(after(console(), word).state(), ReadyState::Booting);
    let mut shown = after(console(), []);
    shown.met();
    assert_eq!(shown.state(), ReadyState::Ready);
    assert_eq!(after(Criterion::Running, []).state(), ReadyState::Ready);
    let any = Criterion::Notify(TargetGoal::Any);
    assert_eq!(after(any.clone(), []).state(), ReadyState::Booting);
    assert_eq!(after(any, [Report::Ready]).state(), ReadyState::Ready);
}

#[test]
fn a_late_guest_is_told_what_it_lacks() {
    let late = |reports: Vec<Report>| {
        let mut late = after(multi_user(), reports);
        late.time_out();
        assert_eq!(late.state(), ReadyState::TimedOut);
        late.status()
    };
    let start = "not ready: the guest had 300 s to reach multi-user.target; it ";
    assert_eq!(
        late(vec![]),
        format!("{start}reported nothing (systemd before 254 needs slotvmm-ready.service)")
    );
    assert_eq!(
        late(vec![active("basic.target")]),
        format!("{start}got to basic.target")
    );
    assert_eq!(
        late(vec![Report::Ready]),
        format!(
            "{start}said READY=1 but names no targets (systemd 254 and 255: set ready.target to \
             \"any\")"
        )
    );
}

#[test]
fn no_time_is_over_for_a_guest_that_is_ready() {
    let mut ready = after(multi_user(), [Report::Ready, active("multi-user.target")]);
    ready.time_out();
    assert_eq!(ready.state(), ReadyState::Ready);
}

#[test]
fn supervisor_hears_of_progress_then_of_readiness_once() {
    let mut teller = Teller::default();
    let start = Instant::now();
    let left = Some(Duration::from_secs(100));
    let booting = after(multi_user(), [active("sysinit.target")]);
    let (notices, _) = teller.tell(start, &booting, left);
    assert_eq!(
        notices,
        [
            Notice::ExtendTimeout(Duration::from_secs(120)),
            Notice::Status("booting: sysinit.target".to_owned())
        ]
    );
    assert_eq!(teller.tell(start, &booting, left), (vec![], None));
    let ready = after(multi_user(), [active("multi-user.target"), Report::Ready]);
    let (notices, _) = teller.tell(start, &ready, left);
    let status = Notice::Status("ready: multi-user.target".to_owned());
    assert_eq!(notices, [Notice::Ready, status]);
    let later = start + Duration::from_secs(1);
    assert_eq!(teller.tell(later, &ready, None), (vec![], None));
}

#[test]
fn a_guest_that_talks_without_end_is_passed_on_now_and_then() {
    let mut teller = Teller::default();
    let start = Instant::now();
    let mut told = 0;
    for ms in 0..1000u64 {
        let target = format!("t{ms}.target");
        let now = start + Duration::from_millis(ms);
        let (notices, again) = teller.tell(now, &after(multi_user(), [active(&target)]), None);
        assert!(!notices.is_empty() || again.is_some_and(|again| again > now));
        told += notices.len();
    }
    assert_eq!(told, 10);
}
