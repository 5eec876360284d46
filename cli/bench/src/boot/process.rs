//! The process of one boot: started, watched until it has shown enough, ended, waited for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

use super::helper::Helpers;
use super::screen::Screen;
use super::{BootError, Inspect, Launch, Listener, Mark, Run, Stop, Until, Watching};
use crate::sys::{self, Ended};

/// How often an inspector looks at most.
const LOOK: Duration = Duration::from_millis(20);

/// How much longer the pause between two looks is than a look.
const PAUSE: u32 = 10;

/// How long a monitor may take to end once it was asked to.
const ENDING: Duration = Duration::from_secs(10);

/// Boots once. `interrupt` becomes readable when the user wants no more.
///
/// # Errors
/// When the boot does not get where it should; its process is gone then, too.
pub fn run(
    launch: &mut Launch<'_>,
    watching: &Watching,
    interrupt: Option<BorrowedFd<'_>>,
    inspector: Option<&mut dyn Inspect>,
) -> Result<Run, BootError> {
    let mut errors = tempfile::tempfile().map_err(BootError::Watch)?;
    let stderr = errors.try_clone().map_err(BootError::Watch)?;
    let mut process = Process::start(launch, stderr)?;
    let mut watch = Watch {
        screen: Screen::new(&watching.texts),
        marks: BTreeMap::new(),
        start: process.start,
        inspector,
        next_look: None,
    };
    let seen = process.watch(&mut watch, launch, watching, interrupt);
    if seen.is_err() {
        process.kill();
    }
    let (started_ns, ended) = process.wait()?;
    watch.marks.insert(Mark::Exit, milliseconds(ended.1));
    let missing = match watching.until {
        Until::Ready => Mark::Ready,
        Until::Exit => Mark::FirstOutput,
    };
    let mut said = watch.screen.into_last();
    said.extend(last_errors(&mut errors));
    match seen? {
        Seen::Interrupted => Err(BootError::Interrupted),
        Seen::TooLate => Err(BootError::TimedOut {
            seconds: watching.patience.as_secs(),
            missing: match watching.until {
                Until::Ready => Mark::Ready,
                Until::Exit => Mark::Exit,
            },
            said,
        }),
        Seen::Ended if !watch.marks.contains_key(&missing) => Err(BootError::Ended {
            status: ended.0.status.to_string(),
            missing,
            said,
        }),
        Seen::Ended => Ok(Run {
            marks: watch.marks,
            user_ms: milliseconds(ended.0.user),
            system_ms: milliseconds(ended.0.system),
            started_ns,
        }),
    }
}

/// How watching came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Ended,
    TooLate,
    Interrupted,
}

/// What is known of a boot so far.
struct Watch<'a, 'i> {
    screen: Screen<'a>,
    marks: BTreeMap<Mark, f64>,
    start: Instant,
    inspector: Option<&'i mut dyn Inspect>,
    /// Not before then is it looked at again.
    next_look: Option<Instant>,
}

impl Watch<'_, '_> {
    /// Not at every byte of a console, and not most of the time: that would take longer than the boot.
    fn look_if_due(&mut self, pid: u32) {
        let now = Instant::now();
        if self.next_look.is_none_or(|next| now >= next) {
            self.look(pid);
        }
    }

    fn look(&mut self, pid: u32) {
        let began = Instant::now();
        if let Some(inspector) = &mut self.inspector {
            inspector.look(pid);
            let pause = began.elapsed().saturating_mul(PAUSE).max(LOOK);
            self.next_look = Instant::now().checked_add(pause);
        }
    }

    /// The first time counts.
    fn mark(&mut self, marks: impl IntoIterator<Item = Mark>) {
        let at = milliseconds(self.start.elapsed());
        for mark in marks {
            self.marks.entry(mark).or_insert(at);
        }
    }
}

/// A monitor's process. It does not outlive this value.
struct Process {
    child: Option<Child>,
    handle: OwnedFd,
    output: ChildStdout,
    start: Instant,
    started_ns: u64,
    /// Ended last.
    _helpers: Helpers,
}

impl Process {
    fn start(launch: &mut Launch<'_>, errors: File) -> Result<Self, BootError> {
        let failed = |source| BootError::Start {
            program: launch.program.clone(),
            source,
        };
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.arguments)
            .envs(launch.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone().map_err(BootError::Watch)?);
        sys::die_with_parent(&mut command);
        let wanted = mem::take(&mut launch.helpers);
        let (start, started_ns) = (Instant::now(), monotonic_ns());
        let helpers = Helpers::start(wanted, &errors)?;
        let mut child = command.spawn().map_err(failed)?;
        let opened = open(&mut child);
        let (handle, output) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // Nobody would watch it; it may have gone already.
                let _ = child.kill();
                let _ = child.wait();
                return Err(BootError::Watch(error));
            }
        };
        Ok(Self {
            child: Some(child),
            handle,
            output,
            start,
            started_ns,
            _helpers: helpers,
        })
    }

    /// Watches until the process has ended or may not go on.
    fn watch(
        &mut self,
        watch: &mut Watch<'_, '_>,
        launch: &mut Launch<'_>,
        watching: &Watching,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<Seen, BootError> {
        let mut deadline = self.start.checked_add(watching.patience);
        let mut output = Output::Open;
        loop {
            let waited = self.wait_for(watch, launch, (deadline, interrupt, output))?;
            match waited {
                Waited::Interrupted => return Ok(Seen::Interrupted),
                Waited::TooLate => return Ok(Seen::TooLate),
                Waited::Something => {}
            }
            output = self.read(watch)?;
            watch.look_if_due(self.pid());
            if let Some(listener) = &mut launch.listener {
                watch.mark(listener.take().map_err(BootError::Watch)?);
            }
            if self.has_ended()? {
                self.read(watch)?;
                return Ok(Seen::Ended);
            }
            let enough = watching.until == Until::Ready && watch.marks.contains_key(&Mark::Ready);
            if enough && !watch.marks.contains_key(&Mark::Stop) {
                watch.look(self.pid());
                watch.mark([Mark::Stop]);
                self.stop(&launch.stop)?;
                deadline = Instant::now().checked_add(ENDING);
            }
        }
    }

    /// Waits until there is something to do.
    fn wait_for(
        &self,
        watch: &mut Watch<'_, '_>,
        launch: &Launch<'_>,
        (deadline, interrupt, output): (Option<Instant>, Option<BorrowedFd<'_>>, Output),
    ) -> Result<Waited, BootError> {
        loop {
            let listening = launch.listener.as_ref().map(Listener::descriptors);
            let mut wait = vec![PollFd::new(&self.handle, PollFlags::IN)];
            wait.extend(interrupt.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            if output == Output::Open {
                wait.push(PollFd::new(&self.output, PollFlags::IN));
            }
            let listening = listening.into_iter().flatten();
            wait.extend(listening.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = match &watch.inspector {
                Some(_) => Some(left.unwrap_or(LOOK).min(LOOK)),
                None => left,
            };
            let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
            match poll(&mut wait, timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(BootError::Watch(errno.into())),
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(Waited::TooLate),
                Ok(0) => watch.look_if_due(self.pid()),
                Ok(_) => {
                    let stopped = interrupt.is_some()
                        && wait.get(1).is_some_and(|fd| !fd.revents().is_empty());
                    return Ok(if stopped {
                        Waited::Interrupted
                    } else {
                        Waited::Something
                    });
                }
            }
        }
    }

    /// Reads what the guest said, without waiting.
    fn read(&mut self, watch: &mut Watch<'_, '_>) -> Result<Output, BootError> {
        let mut chunk = [0; 4096];
        loop {
            match self.output.read(&mut chunk) {
                Ok(0) => return Ok(Output::Closed),
                Ok(bytes) => {
                    watch.mark([Mark::FirstOutput]);
                    let marks = watch.screen.see(chunk.get(..bytes).unwrap_or_default());
                    watch.mark(marks);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Output::Open),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BootError::Watch(error)),
            }
        }
    }

    fn has_ended(&self) -> Result<bool, BootError> {
        let mut wait = [PollFd::new(&self.handle, PollFlags::IN)];
        let ended = poll(&mut wait, Some(&Timespec::default()));
        ended
            .map(|ready| ready > 0)
            .map_err(|errno| BootError::Watch(errno.into()))
    }

    fn stop(&self, stop: &Stop<'_>) -> Result<(), BootError> {
        match stop {
            Stop::Signal => self.signal(Signal::TERM).map_err(BootError::Watch),
            Stop::Ask(ask) => ask().map_err(BootError::Watch),
        }
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        match pid.map(|pid| kill_process(pid, signal)) {
            // It has ended by itself, and is there until it is waited for.
            None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
            Some(Err(errno)) => Err(errno.into()),
        }
    }

    fn kill(&self) {
        // Fails only when it is gone already.
        let _ = self.signal(Signal::KILL);
    }

    /// Waits for the end, however long that takes: a process that was told to go, goes.
    fn wait(mut self) -> Result<(u64, (Ended, Duration)), BootError> {
        if !self.has_ended()? {
            self.kill();
        }
        let child = self
            .child
            .take()
            .ok_or_else(gone)
            .map_err(BootError::Watch)?;
        let ended = sys::wait4(child).map_err(BootError::Watch)?;
        Ok((self.started_ns, (ended, self.start.elapsed())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either fails only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a process's output can bring more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Open,
    Closed,
}

/// What ended a wait.
enum Waited {
    Something,
    TooLate,
    Interrupted,
}

/// A handle to the process, and its output, which is not waited for.
fn open(child: &mut Child) -> io::Result<(OwnedFd, ChildStdout)> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let handle = pidfd_open(pid.ok_or_else(gone)?, PidfdFlags::empty())?;
    let output = child.stdout.take().ok_or_else(gone)?;
    rustix::io::ioctl_fionbio(output.as_fd(), true)?;
    Ok((handle, output))
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// The last lines of standard error.
fn last_errors(errors: &mut File) -> Vec<String> {
    let mut bytes = Vec::new();
    if errors.rewind().is_ok() {
        // What cannot be read is not shown.
        let _ = errors.read_to_end(&mut bytes);
    }
    let mut screen = Screen::new(&[]);
    screen.see(&bytes);
    screen.into_last()
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::boot::{Helper, Text};

    fn shell(script: &str) -> Launch<'static> {
        Launch {
            program: "sh".into(),
            arguments: ["-c".into(), script.into()].to_vec(),
            environment: Vec::new(),
            helpers: Vec::new(),
            listener: None,
            stop: Stop::Signal,
        }
    }

    fn watching(until: Until) -> Watching {
        Watching {
            texts: vec![
                Text::new(Mark::Init, &["INIT"]),
                Text::new(Mark::Ready, &["READY"]),
            ],
            until,
            patience: Duration::from_secs(60),
        }
    }

    fn boot(script: &str, watching: &Watching) -> Result<Run, BootError> {
        run(&mut shell(script), watching, None, None)
    }

    #[test]
    fn marks_of_a_guest_that_ends_are_in_order() {
        let run = boot("echo hello; echo INIT; exit 3", &watching(Until::Exit)).unwrap();
        let marks: Vec<Mark> = run.marks.keys().copied().collect();
        assert_eq!(marks, [Mark::FirstOutput, Mark::Init, Mark::Exit]);
        assert!(run.marks[&Mark::FirstOutput] <= run.marks[&Mark::Exit]);
    }

    #[test]
    fn guest_that_stays_is_ended_once_it_is_ready() {
        let run = boot(
            "echo READY; read x < /proc/self/fd/2; exec sleep 1000",
            &watching(Until::Ready),
        );
        let run = run.unwrap();
        assert!(run.marks[&Mark::Ready] <= run.marks[&Mark::Stop]);
        assert!(run.marks[&Mark::Stop] <= run.marks[&Mark::Exit]);
    }

    #[test]
    fn request_ends_a_monitor_that_a_signal_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stop");
        let script = format!(
            "trap '' TERM; mkfifo {0}; echo READY; read x < {0}",
            path.display()
        );
        let ask = || std::fs::write(&path, "x\n");
        let mut launch = Launch {
            stop: Stop::Ask(&ask),
            ..shell(&script)
        };
        let run = run(&mut launch, &watching(Until::Ready), None, None).unwrap();
        assert!(run.marks.contains_key(&Mark::Stop));
    }

    #[test]
    fn helper_runs_before_the_monitor_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, own) = (dir.path().join("socket"), dir.path().join("helper"));
        let helper = Helper {
            program: "sh".into(),
            arguments: vec![
                "-c".into(),
                format!("echo $$ > {}; exec sleep 1000", own.display()).into(),
            ],
            socket: UnixListener::bind(&path).unwrap(),
        };
        let mut launch = Launch {
            helpers: vec![helper],
            ..shell(&format!(
                "until [ -s {} ]; do :; done; echo INIT",
                own.display()
            ))
        };
        run(&mut launch, &watching(Until::Exit), None, None).unwrap();
        let pid: i32 = fs::read_to_string(own).unwrap().trim().parse().unwrap();
        let gone = rustix::process::test_kill_process(Pid::from_raw(pid).unwrap());
        assert_eq!(gone, Err(Errno::SRCH));
    }

    #[test]
    fn error_has_the_status_and_the_last_lines() {
        let error = boot(
            "echo booting; echo why >&2; exit 7",
            &watching(Until::Ready),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("exit status: 7"), "{error}");
        assert!(error.contains("booting\n    why"), "{error}");
    }

    #[test]
    fn guest_that_hangs_is_ended() {
        let watching = Watching {
            patience: Duration::from_millis(50),
            ..watching(Until::Ready)
        };
        let error = boot("echo so far; exec sleep 1000", &watching).unwrap_err();
        assert!(matches!(error, BootError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn program_that_is_not_there_is_named() {
        let mut launch = Launch {
            program: "/nonexistent/monitor".into(),
            ..shell("")
        };
        let error = run(&mut launch, &watching(Until::Exit), None, None).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/monitor"));
    }

    #[test]
    fn work_of_the_process_is_counted() {
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done";
        let run = boot(script, &watching(Until::Exit)).unwrap();
        assert!(run.cpu_ms() > 1.0, "{run:?}");
    }
}
