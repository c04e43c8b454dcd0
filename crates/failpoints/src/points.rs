//! The places in which a process can be made to die: an effect has happened, the next has not.

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// Its name.
    pub name: &'static str,
    /// What has happened, and what has not.
    pub between: &'static str,
}

impl CrashPoint {
    /// The process is here. It dies if the point is armed.
    #[inline]
    pub fn reached(&self) {
        #[cfg(feature = "active")]
        fail::fail_point!(self.name);
    }
}

macro_rules! points {
    ($($id:ident $name:literal $between:literal;)*) => {
        $(
            #[doc = $between]
            pub const $id: CrashPoint = CrashPoint { name: $name, between: $between };
        )*
        /// All of them.
        pub const ALL: &[CrashPoint] = &[$($id),*];
    };
}

points! {
    ID_TAKEN "id.taken" "the transactional id is taken and whoever had it fenced, no group is joined";
    ASSIGNED "partitions.assigned" "partitions are assigned and their positions read, nothing is fetched";
    START_COMMITTED "start.committed" "positions are committed without outputs: a start is counted, or markers are passed";
    DRAINED "drain.committed" "the last transaction is committed, the member has not left its group";
    TRANSACTION_BEGUN "transaction.begun" "a transaction is begun, nothing is sent";
    OUTPUTS_SENT "transaction.sent" "outputs are sent, positions are not";
    OFFSETS_SENT "transaction.offsets-sent" "positions are sent, nothing is committed";
    TRANSACTION_COMMITTED "transaction.committed" "a transaction is committed, the stage does not know it yet";
    ACCEPT_PRODUCED "accept.produced" "a command is in the log, the client has no receipt";
    ACCEPT_REMEMBERED "accept.remembered" "a command is remembered, the client has no receipt";
    REPLICA_APPLIED "replica.applied" "statuses are in the replica, nobody was told";
    PART_EMBEDDED "part.embedded" "a part has its vectors, they have not left";
    GENERATION_CREATED "generation.created" "a collection exists, nothing says that it is served";
    POINTS_WRITTEN "points.written" "a part's points are written, they are not counted";
    PART_FLUSHED "part.flushed" "an incomplete revision's part is durable, its position is not committed";
    POINTS_SHOWN "points.shown" "staged is cleared, the head has not moved";
    HEAD_MOVED "head.moved" "the head has moved, it is not durable";
    HEAD_FLUSHED "head.flushed" "the head is durable, its event and status are not written";
    REPLAY_FLUSHED "replay.flushed" "a replayed part is durable, what it announces is not written";
    SWEEP_DELETED "sweep.deleted" "replaced points are deleted, the head still asks for it";
    SWEEP_MARKED "sweep.marked" "a head is clean, the other heads of the pass are not";
    REDRIVE_CLAIMED "redrive.claimed" "the redriver has taken its name, nothing is planned";
    REDRIVE_PLANNED "redrive.planned" "letters are chosen, none is written";
    REDRIVE_WRITTEN "redrive.written" "letters are redriven, the caller does not know it";
}
