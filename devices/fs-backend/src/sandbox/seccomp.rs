//! seccomp: the system calls that serving takes.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::SandboxError;

/// Calls that are allowed whatever their arguments, by what they are for.
const ALLOWED: &[c_long] = &[
    // The share.
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_readlinkat,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fstatfs,
    // The frontend, its events and its memory.
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // What kind of socket was received.
    libc::SYS_getsockopt,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ppoll,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads and time.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_prlimit64,
    // The end, also one by a bug.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_tgkill,
];

/// Calls that only some machines have.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// Calls that the C library does without, when it is told that there are none.
const ABSENT: &[c_long] = &[
    // Its flags lie in memory, out of a filter's reach: threads are made with the older one, whose
    // flags are checked.
    libc::SYS_clone3,
    // The allocator asks how the host overcommits before it gives a lot of memory back, which it
    // does when a guest drops many inodes. What the share needs is opened by `openat2`.
    libc::SYS_openat,
];

/// `PR_SET_VMA`: allocators name their memory.
const PR_SET_VMA: u32 = 0x5356_4d41;

/// Allows what serving takes. Any other call ends the process.
pub(super) fn filter() -> Result<(), SandboxError> {
    apply().map_err(SandboxError::Seccomp)
}

fn apply() -> Result<(), Error> {
    let allowed = |arch| {
        SeccompFilter::new(
            rules()?,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            arch,
        )
    };
    let absent = |arch| {
        SeccompFilter::new(
            ABSENT.iter().map(|&call| (call, Vec::new())).collect(),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
            arch,
        )
    };
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    for filter in [absent(arch)?, allowed(arch)?] {
        let program: BpfProgram = filter.try_into()?;
        apply_filter(&program)?;
    }
    Ok(())
}

fn rules() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(OLD)
        .map(|&call| (call, Vec::new()))
        .collect();
    // Refused by the other filter; allowed here, since the strictest answer counts.
    rules.extend(ABSENT.iter().map(|&call| (call, Vec::new())));
    let thread = libc::CLONE_THREAD.cast_unsigned().into();
    rules.insert(libc::SYS_clone, vec![bits(0, thread, thread)?]);
    let executable = libc::PROT_EXEC.cast_unsigned().into();
    rules.insert(libc::SYS_mmap, vec![bits(2, executable, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![bits(2, executable, 0)?]);
    let name = libc::PR_SET_NAME.cast_unsigned();
    rules.insert(libc::SYS_prctl, vec![option(name)?, option(PR_SET_VMA)?]);
    Ok(rules)
}

/// Where the bits `mask` of an argument are `value`.
fn bits(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )?;
    SeccompRule::new(vec![condition])
}

/// Where the first argument, an integer of 32 bits, is `value`.
fn option(value: u32) -> Result<SeccompRule, BackendError> {
    let (length, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
    SeccompRule::new(vec![SeccompCondition::new(0, length, equal, value.into())?])
}
