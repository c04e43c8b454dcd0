//! What can befall the device that runs the model.

use crate::switch::switches;

switches! {
    OUT_OF_MEMORY "device.out-of-memory" "it has memory for a single text, or for a few short ones";
    NOT_A_NUMBER "device.not-a-number" "what it computes is no number";
    NONSENSE "device.nonsense" "it computes the same for every text";
    ERROR "device.error" "it answers with an error";
    HANGS "device.hangs" "it gives no answer";
    GONE "device.gone" "it is not there";
    SLOW "device.slow" "it takes half a second more for a batch";
}
