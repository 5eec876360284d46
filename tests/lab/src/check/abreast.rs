//! Several test programs at a time.

use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

/// Runs `work` on every one of `items`, at most `lanes` of them at a time, and hands what it returns to
/// `done` on the calling thread, in the order in which they end. With one lane that is one after the
/// other.
pub(super) fn abreast<'a, T: Sync, R: Send>(
    items: &'a [T],
    lanes: usize,
    work: impl Fn(&'a T) -> R + Sync,
    mut done: impl FnMut(&'a T, R),
) {
    let next = Mutex::new(items.iter());
    let take = || next.lock().unwrap_or_else(|held| held.into_inner()).next();
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..lanes.max(1) {
            let (sender, work, take) = (sender.clone(), &work, &take);
            scope.spawn(move || {
                while let Some(item) = take() {
                    // The receiver lives as long as this scope.
                    let _ = sender.send((item, work(item)));
                }
            });
        }
        drop(sender);
        for (item, result) in results {
            done(item, result);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn one_lane_keeps_the_order() {
        let mut ended = Vec::new();
        abreast(
            &[3, 1, 2],
            1,
            |item| item * 10,
            |item, ten| ended.push((*item, ten)),
        );
        assert_eq!(ended, [(3, 30), (1, 10), (2, 20)]);
    }

    #[test]
    fn two_lanes_run_two_at_a_time() {
        // Neither gets on without the other.
        let pair = Barrier::new(2);
        let mut ended = Vec::new();
        abreast(
            &[1, 2, 3, 4],
            2,
            |_| pair.wait(),
            |item, _| ended.push(*item),
        );
        ended.sort_unstable();
        assert_eq!(ended, [1, 2, 3, 4]);
    }
}
