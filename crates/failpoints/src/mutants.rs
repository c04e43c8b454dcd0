//! The rules that a test can have broken, and one thing that no rule forbids.

pub use crate::switch::Switch as Mutant;
use crate::switch::switches;

switches! {
    COMMIT_EARLY "commit-early" "a position moves past records that still run";
    DROP_ORDER "drop-order" "records of one key run side by side";
    STATUS_BEFORE_HEAD "status-before-head" "INDEXED is told before the head has moved";
    DELETE_UNEQUAL "delete-unequal" "clean-up deletes every revision but the live one, those being written too";
    HEAD_UNCONDITIONAL "head-unconditional" "a head moves to whatever revision comes last";
    METADATA_AFTER_CUT "metadata-after-cut" "a position counts what finished after its transaction was cut";
    SWITCH_AT_LAST_PART "switch-at-last-part" "the last part makes a revision live, whether the others are there or not";
    KILL_BURNS_ATTEMPTS "kill-burns-attempts" "a single death of the process gives up the record that ran alone";
    OUTPUT_OUTSIDE "output-outside" "outputs are written beside the transaction, not in it";
    BITMAP_IGNORED "bitmap-ignored" "a new owner does not read what is finished above the position";
    ONE_QUERY "one-query" "a search takes its first query's hits and never asks again";
    NO_GRACE "no-grace" "clean-up does not wait for searches that began before";
}

/// No rule: a search takes its time between two queries. What keeps its promises keeps them then too, and what does not is
/// found sooner.
pub const SLOW_SEARCH: Mutant = Mutant {
    name: "slow-search",
    does: "a search waits between its queries",
};
