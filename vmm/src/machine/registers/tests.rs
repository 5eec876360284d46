use std::sync::atomic::AtomicBool;
use std::thread;

use devices::device::Memory;
use kvm_bindings::kvm_regs;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress};

use super::*;

#[test]
fn neighbours_share_a_run_and_nobody_else_is_in_it() {
    let runs = |positions: &[u8]| runs(positions.iter().copied().map(Position));
    assert_eq!(runs(&[]), []);
    assert_eq!(runs(&[12, 0, 8, 1, 13]), [0..2, 8..9, 12..14]);
    assert_eq!(
        runs(&[3, 3, 4, 9]),
        [3..5, 9..10],
        "clashes are found elsewhere"
    );
    assert_eq!(runs(&[1, MAX_POSITION, MAX_POSITION + 1]), [1..2, 15..16]);
}

#[test]
fn each_position_has_a_page_of_its_own_that_begins_empty() {
    let pages = Arc::new(Pages::map(3).unwrap());
    let run = Run {
        positions: 4..7,
        pages,
    };
    let pages = RegisterPages { runs: vec![run] };
    for (value, position) in (1..).zip(4..7) {
        let page = pages.page(Position(position)).unwrap();
        assert!(
            page.words()
                .iter()
                .all(|word| word.load(Ordering::SeqCst) == 0)
        );
        page.words()[PAGE_WORDS - 1].store(value, Ordering::SeqCst);
    }
    assert_eq!(pages.runs[0].pages.range().len(), 3 * 4 * PAGE_WORDS);
    for (value, position) in (1..).zip(4..7) {
        let page = pages.page(Position(position)).unwrap();
        assert_eq!(page.words()[PAGE_WORDS - 1].load(Ordering::SeqCst), value);
    }
    assert!(pages.page(Position(3)).is_none() && pages.page(Position(7)).is_none());
}

#[test]
fn replaced_page_keeps_its_neighbours_and_its_place() {
    let pages = Arc::new(Pages::map(3).unwrap());
    let [before, page, after] = [0, 1, 2].map(|index| pages.page(index).unwrap());
    before.words()[0].store(7, Ordering::SeqCst);
    after.words()[0].store(9, Ordering::SeqCst);
    for value in 0..100 {
        page.exchange(&[value; PAGE_WORDS]).unwrap();
        assert!(
            page.words()
                .iter()
                .all(|word| word.load(Ordering::SeqCst) == value)
        );
    }
    assert_eq!(before.words()[0].load(Ordering::SeqCst), 7);
    assert_eq!(after.words()[0].load(Ordering::SeqCst), 9);
}

#[test]
fn reader_that_saw_a_new_word_sees_no_old_one() {
    let pages = Arc::new(Pages::map(1).unwrap());
    let page = pages.page(0).unwrap();
    let reader = pages.page(0).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..1_000 {
                page.exchange(&[value; PAGE_WORDS]).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let last = reader.words()[PAGE_WORDS - 1].load(Ordering::SeqCst);
            let first = reader.words()[0].load(Ordering::SeqCst);
            assert!(first >= last, "{first} after {last}");
        }
    });
}

/// Where the guest's only page lies, which its data segment begins with.
const SHOWN: u64 = 0x1_0000;

/// How often the page is exchanged.
const LAST: u32 = 1_000;

/// A real-mode guest: writes to the page, then reads its last and its first word until the first is
/// [`LAST`]. Writes to port 0x10 then, or to 0x11 when an old word came after a new one.
const READER: [u8; 31] = [
    0x66, 0xa3, 0x00, 0x00, // mov [0], eax
    0x66, 0xa1, 0xfc, 0x0f, // again: mov eax, [0xffc]
    0x66, 0x8b, 0x1e, 0x00, 0x00, // mov ebx, [0]
    0x66, 0x39, 0xc3, // cmp ebx, eax
    0x72, 0x0b, // jb mixed
    0x66, 0x81, 0xfb, 0xe8, 0x03, 0x00, 0x00, // cmp ebx, LAST
    0x72, 0xe9, // jb again
    0xe6, 0x10, // out 0x10, al
    0xe6, 0x11, // mixed: out 0x11, al
];

/// A vCPU that runs [`READER`], in `vm` with `memory`.
fn reader(vm: &VmFd, memory: &Memory) -> VcpuFd {
    memory.write_slice(&READER, GuestAddress(0)).unwrap();
    kvm::set_memory(vm, memory).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    let mut segments = vcpu.get_sregs().unwrap();
    (segments.cs.base, segments.cs.selector) = (0, 0);
    (segments.ds.base, segments.ds.selector) = (SHOWN, 0x1000);
    vcpu.set_sregs(&segments).unwrap();
    let registers = kvm_regs {
        rax: 0x1234_5678,
        rflags: 2,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&registers).unwrap();
    vcpu
}

#[test]
fn guest_sees_a_page_exchanged_in_one_step_and_cannot_write_to_it() {
    let Ok(kvm) = Kvm::new() else {
        println!("skipped: /dev/kvm cannot be opened");
        return;
    };
    let vm = kvm.create_vm().unwrap();
    let memory = Memory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let pages = Arc::new(Pages::map(1).unwrap());
    kvm::show_pages(&vm, 0, SHOWN, &pages.range()).unwrap();
    let mut vcpu = reader(&vm, &memory);
    let written = matches!(
        vcpu.run().unwrap(),
        VcpuExit::MmioWrite(SHOWN, [0x78, 0x56, 0x34, 0x12])
    );
    assert!(written, "the write is the monitor's");
    let page = pages.page(0).unwrap();
    assert_eq!(page.words()[0].load(Ordering::SeqCst), 0);
    let port = thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..=LAST {
                page.exchange(&[value; PAGE_WORDS]).unwrap();
            }
        });
        loop {
            match vcpu.run() {
                Ok(VcpuExit::IoOut(port, _)) => break port,
                Ok(exit) => panic!("{exit:?}"),
                Err(error) => assert_eq!(error.errno(), libc::EINTR),
            }
        }
    });
    assert_eq!(port, 0x10, "a new word, then an old one");
}
