//! Requests of a guest's file system, through rings and backend: from the kick until the reply is there. The
//! backend is a process of its own, as `slotvmm run` starts it.
//!
//! `BENCH_SLOTVMM` names another build.

use std::env;
use std::error::Error;
use std::fs;
use std::net::Shutdown;

use benches::guest;
use criterion::{Criterion, Throughput};
use fs_backend::abi::entry::EntryOut;
use fs_backend::abi::opcode::Opcode;
use fs_backend::testing::Frontend;
use zerocopy::FromBytes as _;

/// Node of the root.
const ROOT: u64 = 1;
/// Length of `fuse_read_in`, and where the size to read is in it.
const READ_IN: usize = 40;
const READ_SIZE: usize = 16;
/// Room for any reply without data.
const ROOM: u32 = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let program = match env::var_os("BENCH_SLOTVMM") {
        Some(path) => path.into(),
        None => guest::build_slotvmm()?,
    };
    let dir = tempfile::tempdir()?;
    let shared = dir.path().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("file"), vec![0x5a; 1 << 20])?;
    let source = shared.to_str().ok_or("a path that is no text")?;
    let options = ["fs-backend", "--fd", "0", "--source", source];
    let mut backend = fs_backend::spawn(&program, options, dir.path())?;
    let mut frontend = Frontend::new(backend.connection.try_clone()?)?;
    bench(&mut criterion, &mut frontend)?;
    criterion.final_summary();
    drop(frontend);
    // It ends with its frontend.
    backend.connection.shutdown(Shutdown::Both)?;
    backend.child.wait()?;
    Ok(())
}

fn bench(criterion: &mut Criterion, frontend: &mut Frontend) -> Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group("fs_request");
    let mut ask = |opcode: Opcode, node: u64, body: &[u8], room: u32| {
        let reply = frontend.ask(opcode as u32, node, body, room);
        reply.map_err(Box::<dyn Error>::from)?.map_err(Into::into)
    };
    let found: Result<Vec<u8>, Box<dyn Error>> = ask(Opcode::Lookup, ROOT, b"file\0", ROOM);
    let entry = EntryOut::read_from_bytes(&found?).map_err(|_| "a malformed entry")?;
    group.bench_function("lookup", |bench| {
        bench.iter(|| {
            let reply = ask(Opcode::Lookup, ROOT, b"file\0", ROOM);
            assert!(reply.is_ok(), "{reply:?}");
        });
    });
    group.bench_function("getattr", |bench| {
        bench.iter(|| {
            let reply = ask(Opcode::Getattr, entry.nodeid, &[0; 16], ROOM);
            assert!(reply.is_ok(), "{reply:?}");
        });
    });
    for bytes in [4096_u32, 256 << 10] {
        let mut body = [0; READ_IN];
        body[READ_SIZE..READ_SIZE + 4].copy_from_slice(&bytes.to_le_bytes());
        group.throughput(Throughput::Bytes(bytes.into()));
        group.bench_function(format!("read_{bytes}"), |bench| {
            bench.iter(|| {
                let reply = ask(Opcode::Read, entry.nodeid, &body, bytes);
                let length = reply.map_or(0, |data| data.len());
                assert_eq!(length, bytes as usize, "a read failed");
            });
        });
    }
    group.finish();
    Ok(())
}
