//! What can befall the client of the log.

use crate::switch::switches;

switches! {
    STALLS "client.stalls" "it fetches nothing more of a partition of which it has read a record, and says nothing";
}
