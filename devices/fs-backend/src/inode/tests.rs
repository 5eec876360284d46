//! Tests of the table.

use super::*;

fn identity(ino: u64) -> Identity {
    Identity {
        device: 1,
        ino,
        born: 0,
        kind: Kind::Directory,
    }
}

/// A table whose only inode has the last place of all.
fn sparse() -> (Table, NodeId, Vec<Saved>) {
    let last = u32::try_from(MAX_NODES - 1).unwrap();
    let id = NodeId::new(last, 5);
    let saved = vec![Saved {
        id: id.raw(),
        parent: NodeId::ROOT.raw(),
        name: b"far".as_slice().into(),
        identity: identity(2),
        lookups: 1,
    }];
    let table = Table::restore(identity(1), 9, saved.clone()).unwrap();
    (table, id, saved)
}

#[test]
fn one_inode_at_the_last_place_costs_one_place() {
    let (mut table, id, saved) = sparse();
    assert!(table.places() < 10, "{}", table.places());
    assert_eq!(table.get(id).unwrap().identity, identity(2));
    assert_eq!(table.save(), saved);
    assert_eq!(table.forget(id, 1), [id]);
    assert!(table.get(id).is_err());
    assert!(table.is_empty());
}

#[test]
fn places_between_are_given_to_others() {
    let saved = |place, ino| Saved {
        id: NodeId::new(place, 5).raw(),
        parent: NodeId::ROOT.raw(),
        name: b"name".as_slice().into(),
        identity: identity(ino),
        lookups: 1,
    };
    let kept = [saved(8, 2), saved(11, 3)];
    let mut table = Table::restore(identity(1), 9, kept.to_vec()).unwrap();
    let new: Vec<NodeId> = (10..22)
        .map(|ino| {
            let name = ino.to_string();
            table.reference(NodeId::ROOT, name.as_bytes(), identity(ino))
        })
        .collect::<Result<_, _>>()
        .unwrap();
    for (id, ino) in new.iter().zip(10..) {
        assert_eq!(table.get(*id).unwrap().identity, identity(ino));
    }
    for kept in &kept {
        let found = table.get(NodeId::from_raw(kept.id)).unwrap();
        assert_eq!(found.identity, kept.identity);
        let again = table.reference(NodeId::ROOT, b"name", kept.identity);
        assert_eq!(again.unwrap().raw(), kept.id);
    }
    assert_eq!(table.len(), 15);
}
