//! Threads: names, processors, priority.

use crate::OsError;
use crate::call::check;
use std::ffi::CString;

/// Names the calling thread; cut to 15 bytes.
pub fn set_thread_name(name: &str) -> Result<(), OsError> {
    let bytes: Vec<u8> = name.bytes().filter(|&b| b != 0).take(15).collect();
    let doing = || format!("name a thread `{name}`");
    let c = CString::new(bytes).map_err(|_| OsError::new(doing(), libc::EINVAL))?;
    // SAFETY: the pointer is to a NUL-terminated string of at most 16 bytes.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, c.as_ptr()) }, doing).map(drop)
}

/// The processors that the calling thread may run on, ascending.
pub fn affinity() -> Result<Vec<usize>, OsError> {
    // SAFETY: all-zero is a valid cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live set of the stated size that the kernel fills.
    let ret = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    check(ret, || "read the thread's processors".into())?;
    // SAFETY: CPU_ISSET reads inside the set for every number below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Lets the calling thread run on these processors only. `EINVAL` when none of them is there.
pub fn set_affinity(cpus: &[usize]) -> Result<(), OsError> {
    let doing = || format!("bind a thread to processors {cpus:?}");
    // SAFETY: all-zero is a valid cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(OsError::new(doing(), libc::EINVAL));
        }
        // SAFETY: the number is below CPU_SETSIZE, so the bit is inside the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the pointer is to a live set of the stated size that the kernel only reads.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }, doing).map(drop)
}

/// Sets the nice value of the calling thread: -20 (first) to 19 (last).
pub fn set_nice(nice: i32) -> Result<(), OsError> {
    // SAFETY: no pointers. With 0 the kernel means the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }, || format!("set nice {nice}")).map(drop)
}

/// Marks the calling thread as batch work: it does not preempt others when it wakes.
pub fn set_batch() -> Result<(), OsError> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live sched_param that the kernel only reads.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param) }, || "set policy SCHED_BATCH".into()).map(drop)
}

/// The processor that the calling thread runs on, at this moment.
pub fn current_cpu() -> Result<usize, OsError> {
    // SAFETY: no pointers.
    check(unsafe { libc::sched_getcpu() }, || "read the current processor".into()).map(|cpu| cpu as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_named_and_bound() {
        std::thread::spawn(|| {
            set_thread_name("a-name-longer-than-fifteen").unwrap();
            assert_eq!(std::fs::read_to_string("/proc/thread-self/comm").unwrap(), "a-name-longer-t\n");
            let all = affinity().unwrap();
            let last = *all.last().unwrap();
            set_affinity(&[last]).unwrap();
            assert_eq!(affinity().unwrap(), [last]);
            assert_eq!(current_cpu().unwrap(), last);
            assert!(set_affinity(&[]).unwrap_err().is(libc::EINVAL));
            assert!(set_affinity(&[usize::MAX]).unwrap_err().is(libc::EINVAL));
            set_nice(5).unwrap();
            set_batch().unwrap();
        })
        .join()
        .unwrap();
    }
}
