//! Whether a service is there at all.

use super::{Link, PROTOCOL, Request, Sought};
use crate::error::Result;
use crate::provider::Settings;

impl Link {
    /// Greets the service on a connection of its own and gives its version.
    ///
    /// # Errors
    /// Why it is not there, not trusted, silent, or of another protocol.
    pub fn greet(&self) -> Result<String> {
        let nobody = self.register(Sought::Name(String::new(), Settings::new()));
        let hello = Request::Hello { protocol: PROTOCOL };
        let greeted = self.connect().map(|(_, version)| version);
        greeted.map_err(|failure| self.explain(failure, &nobody, &hello))
    }
}
