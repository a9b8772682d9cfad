//! Which system calls a running firewall may make, by seccomp.
//!
//! Two filters, the stricter of which decides:
//!
//! * What is not on the list of what we use **does not exist** (`ENOSYS`). Not a kill: a libc that
//!   has learned of a new call tries it and falls back, and a call on a rare path that the list
//!   overlooks must not let somebody end the firewall with a packet. Whoever asks gets an error, and
//!   says so.
//! * What no library makes of its own accord and only somebody else's code would (`execve`, `ptrace`,
//!   `mount`, `setuid`, `bpf` …) **ends the process**: what it holds cannot be trusted any more, and
//!   a firewall that cannot trust itself must not pass anything.
//!
//! There is no socket to be made, none to be connected or bound, and no memory that can be executed.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use crate::SandboxError;

/// What may be called whatever its arguments.
const ALLOWED: &[libc::c_long] = &[
    // Bytes.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fsync,
    libc::SYS_fcntl,
    libc::SYS_dup,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Files: which, Landlock says.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    // Sockets that are there.
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory; mmap and mprotect below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads; clone below.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Questions.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrlimit,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The same, of names that only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_unlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_accept,
    libc::SYS_time,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[libc::c_long] = &[libc::SYS_renameat, libc::SYS_accept];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ALLOWED_HERE: &[libc::c_long] = &[libc::SYS_accept];

/// What ends the process.
const DEADLY: &[libc::c_long] = &[
    // Other programs, and looking into them.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    // Other users.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // Other views of the system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// ioctls: whether a TAP or an interface is still there, whether output is a terminal, and what
/// becomes of a descriptor.
#[allow(clippy::unnecessary_cast)] // They are of different types on different libcs.
const IOCTLS: [u64; 6] = [
    libc::TUNGETIFF as u64,
    libc::SIOCGIFNAME as u64,
    libc::FIONBIO as u64,
    libc::FIOCLEX as u64,
    libc::TCGETS as u64,
    libc::TIOCGWINSZ as u64,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Takes all system calls away but those that a running firewall makes; or why that cannot be.
pub(crate) fn restrict() -> Result<Result<(), String>, SandboxError> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(Err(format!("no filter is known for {}", std::env::consts::ARCH)));
    };
    let what = "filter system calls";
    let nothing = SeccompAction::Errno(libc::ENOSYS as u32);
    let deadly = DEADLY.iter().map(|&call| (call, Vec::new())).collect();
    let filters = [
        // Installed first: it must be allowed to install the second.
        filter(deadly, SeccompAction::Allow, SeccompAction::KillProcess, arch),
        allowed().and_then(|rules| filter(rules, nothing, SeccompAction::Allow, arch)),
    ];
    for filter in filters {
        match apply_filter_all_threads(&filter.map_err(|error| SandboxError::refused(what, error))?)
        {
            Ok(()) => {}
            Err(Error::Seccomp(error)) if error.raw_os_error() == Some(libc::ENOSYS) => {
                return Ok(Err("this kernel has no seccomp filters".to_owned()));
            }
            Err(error) => return Err(SandboxError::refused(what, error)),
        }
    }
    Ok(Ok(()))
}

fn filter(
    rules: Rules,
    otherwise: SeccompAction,
    on_list: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, otherwise, on_list, arch)?.try_into()
}

/// What may be called, and with which arguments.
fn allowed() -> Result<Rules, seccompiler::BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let when = |argument, len, how, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, len, how, value)?])
    };
    let always = ALLOWED.iter().chain(ALLOWED_HERE);
    let mut rules: Rules = always.map(|&call| (call, Vec::new())).collect();
    // No memory that can be executed.
    let executable = libc::PROT_EXEC as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![when(2, Dword, MaskedEq(executable), 0)?]);
    }
    // Threads, and no processes. What clone3 is told cannot be looked at; without it libc uses clone.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![when(0, Qword, MaskedEq(thread), thread)?]);
    let ioctls = IOCTLS.iter().map(|&call| when(1, Dword, Eq, call)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctls);
    // The name of a thread.
    let name = libc::PR_SET_NAME as u64;
    rules.insert(libc::SYS_prctl, vec![when(0, Dword, Eq, name)?]);
    // Limits may be read.
    rules.insert(libc::SYS_prlimit64, vec![when(2, Qword, Eq, 0)?]);
    // Signals to ourselves alone: how a process aborts.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![when(0, Dword, Eq, own)?]);
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lists do not overlap, and every filter can be built, for each architecture that we know.
    #[test]
    fn nothing_is_both_allowed_and_deadly() {
        let rules = allowed().expect("rules");
        for call in DEADLY {
            assert!(!rules.contains_key(call), "{call}");
        }
        for arch in ["x86_64", "aarch64"] {
            let arch = TargetArch::try_from(arch).expect("known");
            let nothing = SeccompAction::Errno(libc::ENOSYS as u32);
            filter(allowed().expect("rules"), nothing, SeccompAction::Allow, arch).expect("built");
        }
    }
}
