use proptest::prelude::{any, prop, proptest};

use super::*;
use crate::vsock::window::{ReceiveWindow, SendWindow};

fn news(buf_alloc: u32, fwd_cnt: u32) -> Header {
    Header {
        buf_alloc,
        fwd_cnt,
        ..Header::default()
    }
}

#[test]
fn room_is_the_same_across_the_wrap() {
    let mut window = SendWindow::default();
    let mut forwarded = 0u32;
    window.learn(&news(1 << 30, forwarded));
    for _ in 0..10 {
        assert_eq!(window.room(), 1 << 30);
        window.sent(1 << 30);
        assert_eq!(window.room(), 0);
        forwarded = forwarded.wrapping_add(1 << 30);
        window.learn(&news(1 << 30, forwarded));
    }
}

#[test]
fn a_guest_that_forwarded_more_than_was_sent_gets_nothing() {
    let mut window = SendWindow::default();
    window.learn(&news(4096, 1));
    assert_eq!(window.room(), 0);
}

#[test]
fn a_buffer_that_shrinks_below_what_is_in_flight_has_no_room() {
    let mut window = SendWindow::default();
    window.learn(&news(4096, 0));
    window.sent(4096);
    window.learn(&news(1024, 0));
    assert_eq!(window.room(), 0);
}

#[test]
fn more_than_the_window_is_refused() {
    let mut window = ReceiveWindow::new(100);
    assert!(window.receive(100));
    assert!(!window.receive(1));
    window.forward(1);
    assert!(window.receive(1));
    assert!(!window.receive(u32::MAX));
}

proptest! {
    /// Whatever is forwarded when, a guest that sends no more than it knows to fit is never refused,
    /// and is told before it runs dry for good.
    #[test]
    fn honest_guest_always_fits(steps in prop::collection::vec((any::<u16>(), any::<u16>()), 1..200)) {
        let mut device = ReceiveWindow::new(1 << 16);
        let mut guest = SendWindow::default();
        guest.learn(&news(1 << 16, 0));
        let mut held = 0u32;
        for (send, forward) in steps {
            let bytes = u32::from(send).min(guest.room());
            assert!(device.receive(bytes));
            guest.sent(bytes);
            held += bytes;
            let forwarded = u32::from(forward).min(held);
            held -= forwarded;
            device.forward(forwarded);
            if device.is_news_due() {
                let mut header = Header::default();
                device.announce(&mut header);
                guest.learn(&header);
            }
            assert!(held > 0 || guest.room() > 1 << 15, "an empty buffer is known to be mostly free");
        }
    }
}
