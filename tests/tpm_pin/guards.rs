//! What counts: the token's own counter, or where that is not to be had, the whole TPM.
