use super::*;

const VCPUS: [u8; 5] = [1, 2, 3, 6, 254];

fn inventory(vcpus: u8) -> Inventory {
    Inventory {
        vcpus,
        pins: vec![4, 8, 23],
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Walks the entries of a table as a guest does, by the length each type has.
fn walk(table: &[u8]) -> Vec<&[u8]> {
    let mut rest = &table[HEADER_LEN..];
    let mut found = Vec::new();
    while let Some(kind) = rest.first() {
        let (entry, after) = rest.split_at(if *kind == entry::PROCESSOR { 20 } else { 8 });
        found.push(entry);
        rest = after;
    }
    found
}

#[test]
fn checksums_are_right_and_the_pointer_leads_to_the_table() {
    for vcpus in VCPUS {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write(&memory, &inventory(vcpus)).unwrap();
        let read = |address, length| {
            let mut bytes = vec![0; length];
            memory
                .read_slice(&mut bytes, GuestAddress(address))
                .unwrap();
            bytes
        };
        let pointer = read(layout::MP_POINTER, POINTER_LEN);
        assert_eq!(pointer[..4], *b"_MP_");
        assert_eq!(checksum(&pointer), 0);
        let at = u32::from_le_bytes(pointer[4..8].try_into().unwrap());
        let header = read(at.into(), HEADER_LEN);
        assert_eq!(header[..4], *b"PCMP");
        let table = read(at.into(), u16_at(&header, 4).into());
        assert_eq!(checksum(&table), 0);
        assert_eq!(table, super::table(&inventory(vcpus)));
    }
}

#[test]
fn every_vcpu_has_an_entry_and_one_of_them_boots() {
    for vcpus in VCPUS {
        let table = table(&inventory(vcpus));
        let entries = walk(&table);
        assert_eq!(entries.len(), usize::from(u16_at(&table, 34)));
        let processors: Vec<_> = entries
            .iter()
            .filter(|e| e[0] == entry::PROCESSOR)
            .collect();
        let ids: Vec<u8> = processors.iter().map(|e| e[1]).collect();
        assert_eq!(ids, (0..vcpus).collect::<Vec<_>>());
        let boots: Vec<u8> = processors
            .iter()
            .filter(|e| e[3] & BOOTSTRAP != 0)
            .map(|e| e[1])
            .collect();
        assert_eq!(boots, [0]);
    }
}

#[test]
fn lines_are_numbered_after_their_pins_and_lead_to_the_io_apic() {
    for vcpus in VCPUS {
        let table = table(&inventory(vcpus));
        let entries = walk(&table);
        let ioapic = entries.iter().find(|e| e[0] == entry::IOAPIC).unwrap();
        assert_eq!(ioapic[1..4], [vcpus, 0x11, 1]);
        assert_eq!(ioapic[4..], 0xfec0_0000u32.to_le_bytes());
        let lines: Vec<_> = entries
            .iter()
            .filter(|e| e[0] == entry::IO_INTERRUPT)
            .map(|e| e.to_vec())
            .collect();
        let expected = [4, 8, 23].map(|pin| [3, 0, 0b0101, 0, BUS, pin, vcpus, pin].to_vec());
        assert_eq!(lines, expected);
    }
}

#[test]
fn entries_are_in_ascending_order_of_type() {
    let table = table(&inventory(3));
    let kinds: Vec<u8> = walk(&table).iter().map(|e| e[0]).collect();
    assert_eq!(kinds, [0, 0, 0, 1, 2, 3, 3, 3, 4, 4]);
}

#[test]
fn full_machine_fits_where_linux_looks_and_nothing_else_lies() {
    let full = Inventory {
        vcpus: 254,
        pins: (0..24).collect(),
    };
    assert!(table(&full).len() as u64 <= layout::SMBIOS_START - layout::MP_TABLE);
    // The last KiB of the 640 KiB of base memory, in what the memory map reserves.
    let pointer = layout::MP_POINTER..layout::MP_POINTER + POINTER_LEN as u64;
    assert!(pointer.start >= 639 << 10 && pointer.end <= 640 << 10);
    assert!(pointer.start >= layout::LOW_RAM_END);
    assert_eq!(pointer.start % 16, 0);
}
