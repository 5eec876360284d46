//! The key that detaches: Ctrl-A x. Ctrl-A Ctrl-A sends one Ctrl-A.

/// Ctrl-A.
const PREFIX: u8 = 0x01;

/// Finds the escape in what is typed. Keeps a Ctrl-A that ends one read for the next.
#[derive(Debug, Default)]
pub(super) struct Escape {
    prefixed: bool,
}

/// What a piece of input came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// Bytes for the guest.
    pub(super) send: Vec<u8>,
    /// Whether the user detached; what was typed after that is dropped.
    pub(super) detach: bool,
}

impl Escape {
    /// Takes what was typed. After Ctrl-A, any other key is sent together with that Ctrl-A, so
    /// that programs in the guest that use it, such as screen, still work.
    pub(super) fn feed(&mut self, input: &[u8]) -> Typed {
        let mut send = Vec::with_capacity(input.len());
        for &byte in input {
            match (self.prefixed, byte) {
                (false, PREFIX) => self.prefixed = true,
                (false, _) => send.push(byte),
                (true, b'x') => return Typed { send, detach: true },
                (true, PREFIX) => {
                    self.prefixed = false;
                    send.push(PREFIX);
                }
                (true, _) => {
                    self.prefixed = false;
                    send.extend([PREFIX, byte]);
                }
            }
        }
        Typed {
            send,
            detach: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut escape = Escape::default();
        let mut sent = Vec::new();
        for piece in pieces {
            let typed = escape.feed(piece);
            sent.extend(typed.send);
            if typed.detach {
                return (sent, true);
            }
        }
        (sent, false)
    }

    #[test]
    fn ctrl_a_x_detaches_and_drops_the_rest() {
        assert_eq!(typed(&[b"ls\r\x01xrm"]), (b"ls\r".to_vec(), true));
    }

    #[test]
    fn the_escape_is_found_across_reads() {
        assert_eq!(typed(&[b"a\x01", b"x"]), (b"a".to_vec(), true));
    }

    #[test]
    fn ctrl_a_twice_sends_one() {
        assert_eq!(typed(&[b"\x01\x01x"]), (b"\x01x".to_vec(), false));
    }

    #[test]
    fn ctrl_a_with_another_key_reaches_the_guest() {
        assert_eq!(typed(&[b"\x01c"]), (b"\x01c".to_vec(), false));
    }

    #[test]
    fn a_plain_x_is_a_plain_x() {
        assert_eq!(typed(&[b"x\x00\xff"]), (b"x\x00\xff".to_vec(), false));
    }
}
