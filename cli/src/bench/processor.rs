//! Processor time of the processes of a stack, and of this one.

use std::fs;

use anyhow::{Context, Result};
use millrace_testkit::Stack;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, getpid};

/// How rows call this process: it submits, watches, and is the model's endpoint.
const OURS: &str = "the bench itself with its stub";

/// Seconds that each process has used since it began, its threads and the system on its behalf included.
pub fn used(stack: &Stack) -> Result<Vec<(String, f64)>> {
    let of_part = |part: String| {
        let seconds = of_part(stack, &part)?;
        Ok((part, seconds))
    };
    let mut used: Vec<_> = stack.size.parts().into_iter().map(of_part).collect::<Result<_>>()?;
    used.push((OURS.to_owned(), seconds(getpid())?));
    Ok(used)
}

/// The same of one part of a stack.
pub fn of_part(stack: &Stack, part: &str) -> Result<f64> {
    seconds(stack.pid(part)?)
}

fn seconds(pid: Pid) -> Result<f64> {
    let file = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let ticks = ticks(&stat).with_context(|| format!("{file} has no processor time"))?;
    Ok(ticks as f64 / clock_ticks_per_second() as f64)
}

/// `utime` and `stime`, the 14th and 15th field of proc(5).
fn ticks(stat: &str) -> Option<u64> {
    // The second one, a name in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_skipped() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 9 0 0 0 250 30 7 7 20 0 5 0 100 0 0";
        assert_eq!(ticks(stat), Some(280));
        assert_eq!(ticks("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_used_some() {
        assert!(seconds(getpid()).unwrap() >= 0.0);
    }
}
