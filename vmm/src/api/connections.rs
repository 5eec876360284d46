//! The connections that are served at once, and who makes room when there are too many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Duration, Instant, timeout_at};

/// Most connections served at once. Those that have asked for something are never cut off for
/// another; more of them wait in the socket's backlog.
pub(super) const MAX_CONNECTIONS: usize = 16;

/// How long a connection has to ask before it may be cut off for another.
const GRACE: Duration = Duration::from_millis(250);

/// Whether a connection has ever asked for something.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// Notes that it has.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Silent {
    since: Instant,
    asked: Asked,
    task: AbortHandle,
}

/// The connections that are being served.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    /// Those that had asked for nothing when last looked at, the oldest first.
    silent: VecDeque<Silent>,
}

impl Connections {
    /// Serves one more connection by `serve`, which notes on what it is given when it is asked
    /// for something. Waits while all others have asked or are new; otherwise the oldest that
    /// has not is cut off, so that whoever only connects keeps nobody out.
    pub(super) async fn add<S, F>(&mut self, serve: S)
    where
        S: FnOnce(Asked) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        self.make_room().await;
        let asked = Asked::default();
        let task = self.tasks.spawn(serve(asked.clone()));
        self.silent.push_back(Silent {
            since: Instant::now(),
            asked,
            task,
        });
    }

    async fn make_room(&mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.silent
                .retain(|one| !one.task.is_finished() && !one.asked.get());
            if self.tasks.len() < MAX_CONNECTIONS {
                return;
            }
            let Some(oldest) = self.silent.front() else {
                let _ended = self.tasks.join_next().await;
                continue;
            };
            if oldest.since.elapsed() >= GRACE {
                tracing::debug!("a control connection that asks for nothing makes room");
                oldest.task.abort();
                let _ended = self.tasks.join_next().await;
                continue;
            }
            let patience = oldest.since + GRACE;
            let _ended = timeout_at(patience, self.tasks.join_next()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn block_on(future: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future);
    }

    /// A connection that is served until its sender is dropped; the receiver tells of its end.
    async fn open(connections: &mut Connections, asks: bool) -> oneshot::Receiver<()> {
        let (alive, ended) = oneshot::channel::<()>();
        connections
            .add(|asked| async move {
                if asks {
                    asked.set();
                }
                std::future::pending::<()>().await;
                drop(alive);
            })
            .await;
        tokio::task::yield_now().await;
        ended
    }

    fn is_open(connection: &mut oneshot::Receiver<()>) -> bool {
        connection.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn who_asks_for_nothing_makes_room_for_the_newest() {
        block_on(async {
            let mut connections = Connections::default();
            let mut asking = open(&mut connections, true).await;
            let mut silent = Vec::new();
            for _ in 0..3 * MAX_CONNECTIONS {
                silent.push(open(&mut connections, false).await);
            }
            assert!(is_open(&mut asking));
            let open: Vec<bool> = silent.iter_mut().map(is_open).collect();
            let (cut_off, left) = open.split_at(2 * MAX_CONNECTIONS + 1);
            assert!(cut_off.iter().all(|open| !open), "{open:?}");
            assert!(left.iter().all(|open| *open), "{open:?}");
        });
    }

    #[test]
    fn who_is_new_has_time_to_ask() {
        block_on(async {
            let mut connections = Connections::default();
            let began = Instant::now();
            let mut first = Vec::new();
            for _ in 0..MAX_CONNECTIONS {
                first.push(open(&mut connections, false).await);
            }
            assert_eq!(began.elapsed(), Duration::ZERO);
            let _next = open(&mut connections, false).await;
            assert!(began.elapsed() >= GRACE);
            assert!(!is_open(&mut first[0]));
            assert!(is_open(&mut first[1]));
        });
    }

    #[test]
    fn who_has_asked_is_waited_for() {
        block_on(async {
            let mut connections = Connections::default();
            let (end, ended) = oneshot::channel::<()>();
            connections
                .add(|asked| async move {
                    asked.set();
                    let _ = ended.await;
                })
                .await;
            let mut others = Vec::new();
            for _ in 1..MAX_CONNECTIONS {
                others.push(open(&mut connections, true).await);
            }
            let mut next = Box::pin(open(&mut connections, true));
            tokio::select! {
                biased;
                _ = &mut next => panic!("It was served beyond the limit"),
                () = tokio::task::yield_now() => {}
            }
            drop(end);
            let mut next = next.await;
            assert!(is_open(&mut next));
            assert!(others.iter_mut().all(is_open));
        });
    }
}
