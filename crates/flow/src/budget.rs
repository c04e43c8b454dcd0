//! When a partition stops fetching. Each assigned partition has a share of its own; the rest is common.

/// Part of the process's budget that is divided among partitions as shares of their own; the rest is common.
const OWN: usize = 2;

/// Bytes that records received and not finished may occupy.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    total_bytes: usize,
}

/// What partitions occupy now, and what that allows.
#[derive(Debug, Clone, Copy)]
pub struct Occupancy {
    share: usize,
    common: usize,
    common_used: usize,
    no_room: bool,
}

impl Budget {
    /// A budget for the whole process.
    pub fn new(total_bytes: usize) -> Self {
        Self { total_bytes }
    }

    /// Sums up what each assigned partition occupies.
    pub fn occupancy(&self, used: &[usize]) -> Occupancy {
        let share = self.total_bytes / OWN / used.len().max(1);
        Occupancy {
            share,
            common: self.total_bytes - self.total_bytes / OWN,
            common_used: used.iter().map(|bytes| bytes.saturating_sub(share)).sum(),
            no_room: used.iter().sum::<usize>() >= self.total_bytes / 4 * 3,
        }
    }
}

impl Occupancy {
    /// Whether nearly all of the budget is used: no single partition is to blame, and waiting for room costs none of the
    /// others anything.
    pub fn no_room(&self) -> bool {
        self.no_room
    }

    /// Whether a partition that occupies `used` bytes should be paused. A paused one resumes at half of what stopped
    /// it, so that fetching does not flutter (a pause drops what was fetched ahead).
    ///
    /// | own share | common part | running | paused |
    /// |---|---|---|---|
    /// | free | any | goes on | resumes when half is free |
    /// | used up | free | goes on | resumes when half is free |
    /// | used up | used up | pauses | stays |
    pub fn pause(&self, used: usize, paused: bool) -> bool {
        let divisor = if paused { 2 } else { 1 };
        used >= self.share / divisor && self.common_used >= self.common / divisor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table() {
        let budget = Budget::new(400);
        // Two partitions: 100 each of their own, 200 common.
        let at = |used: [usize; 2]| budget.occupancy(&used);
        assert!(!at([99, 400]).pause(99, false), "its own share is free");
        assert!(at([99, 400]).pause(99, true), "not half free yet");
        assert!(!at([49, 400]).pause(49, true));
        assert!(!at([299, 0]).pause(299, false), "the common part is free");
        assert!(at([300, 0]).pause(300, false));
        assert!(at([250, 0]).pause(250, true), "stays");
        assert!(!at([199, 0]).pause(199, true), "half of the common part is free");
        assert!(at([300, 0]).no_room() && at([200, 100]).no_room() && !at([299, 0]).no_room());
        let many: Vec<usize> = [300].into_iter().chain([0; 11]).collect();
        assert!(budget.occupancy(&many).pause(300, false) && !Budget::new(440).occupancy(&many).no_room());
    }
}
