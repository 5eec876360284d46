use std::sync::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Refusing;

impl Write for Refusing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn port(output: impl Write + Send + 'static) -> (SerialPort, EventFd) {
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let port = SerialPort::new(irq.try_clone().unwrap(), Box::new(output)).unwrap();
    (port, irq)
}

fn read(port: &mut SerialPort, register: u64) -> u8 {
    let mut value = [0];
    port.read(register, &mut value);
    value[0]
}

#[test]
fn output_reaches_the_sink_byte_for_byte() {
    let output = Output::default();
    let (mut port, _irq) = port(output.clone());
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    for byte in &sent {
        port.write(0, &[*byte]);
    }
    assert_eq!(*output.0.lock().unwrap(), sent);
    assert_eq!(port.lost(), 0);
}

#[test]
fn refused_output_is_counted() {
    let (mut port, _irq) = port(Refusing);
    for _ in 0..1000 {
        port.write(0, b"x");
    }
    assert_eq!(port.lost(), 1000);
    assert_ne!(
        read(&mut port, 5) & 0x20,
        0,
        "the transmitter is ready all the same"
    );
}

#[test]
fn input_of_any_length_arrives_through_a_bounded_fifo() {
    let (mut port, irq) = port(Output::default());
    port.write(1, &[1]);
    let input: Vec<u8> = (0..=u8::MAX).cycle().take(10_000).collect();
    let (mut offered, mut received) = (0, Vec::new());
    while received.len() < input.len() {
        let fit = port.enqueue(&input[offered..]).unwrap();
        assert!(fit <= 64);
        offered += fit;
        irq.read().unwrap();
        while read(&mut port, 5) & 1 != 0 {
            received.push(read(&mut port, 0));
        }
        if offered < input.len() {
            port.space().read().unwrap();
        }
    }
    assert_eq!(received, input);
    assert!(
        port.space().read().is_err(),
        "nobody waits for space any more"
    );
}

#[test]
fn interrupt_stays_pending_until_the_last_byte_is_read() {
    let (mut port, irq) = port(Output::default());
    port.write(1, &[1]);
    port.enqueue(b"abc").unwrap();
    irq.read().unwrap();
    for byte in b"abc" {
        assert_eq!(read(&mut port, 2) & 0x0f, 4, "before {byte}");
        assert_eq!(read(&mut port, 0), *byte);
    }
    assert_eq!(read(&mut port, 2) & 0x0f, 1);
}

/// Linux leaves its interrupt handler after 256 bytes, though the port was filled again and again
/// in the meantime.
#[test]
fn driver_that_reads_a_part_of_a_long_line_is_told_of_the_rest() {
    let (mut port, irq) = port(Output::default());
    port.write(1, &[1]);
    let mut left = 330;
    let mut fill = |port: &mut SerialPort| left -= port.enqueue(&vec![b'x'; left]).unwrap();
    fill(&mut port);
    let mut handled = Vec::new();
    while irq.read().is_ok() {
        while read(&mut port, 2) & 1 == 0 {
            let mut count = 0;
            while count < 256 && read(&mut port, 5) & 1 != 0 {
                read(&mut port, 0);
                count += 1;
                if port.space().read().is_ok() {
                    fill(&mut port);
                }
            }
            handled.push(count);
        }
    }
    assert_eq!(handled, [256, 74]);
}

#[test]
fn input_that_came_while_its_interrupt_was_off_interrupts_later() {
    let (mut port, irq) = port(Output::default());
    port.enqueue(b"a").unwrap();
    assert!(irq.read().is_err());
    port.write(1, &[1]);
    irq.read().unwrap();
    assert_eq!(read(&mut port, 2) & 0x0f, 4);
}

#[test]
fn input_refused_in_loop_back_is_announced_afterwards() {
    let (mut port, _irq) = port(Output::default());
    port.write(4, &[0x10]);
    assert_eq!(port.enqueue(b"abc").unwrap(), 0);
    assert!(port.space().read().is_err());
    port.write(4, &[0]);
    port.space().read().unwrap();
    assert_eq!(port.enqueue(b"abc").unwrap(), 3);
}

#[test]
fn accesses_of_other_widths_and_offsets_do_nothing() {
    let output = Output::default();
    let (mut port, _irq) = port(output.clone());
    port.write(0, b"ab");
    port.write(8, b"a");
    port.write(u64::MAX, b"a");
    let mut word = [0xff; 4];
    port.read(0, &mut word);
    assert_eq!(word, [0; 4]);
    assert!(output.0.lock().unwrap().is_empty());
}

#[test]
fn restored_port_keeps_input_and_raises_what_was_pending() {
    let (mut old, irq) = port(Output::default());
    old.write(1, &[1]);
    old.enqueue(b"hello").unwrap();
    irq.read().unwrap();
    let state = old.save();

    let mut new =
        SerialPort::restore(irq.try_clone().unwrap(), Box::new(io::sink()), &state).unwrap();
    irq.read().unwrap();
    assert_eq!(new.save(), state);
    assert_eq!(read(&mut new, 0), b'h');
}

#[test]
fn state_with_too_much_input_is_refused() {
    let (old, irq) = port(Output::default());
    let state = SerialPortState {
        input: vec![0; 65],
        ..old.save()
    };
    let restored = SerialPort::restore(irq, Box::new(io::sink()), &state);
    assert!(matches!(restored, Err(SerialError::State(_))));
}
