import MATRuntime
import MATSignal

extension ConfigurationSection {
    /// `listen` of the section `view`: where the page for people is, on loopback; nowhere unless it is given.
    ///
    /// - Parameter defaultPort: if only an address is given.
    package func viewAddress(defaultPort: UInt16) -> Endpoint? {
        let given = value("listen", .endpoint(defaultPort: defaultPort))
        if let address = given?.address, !address.isLoopback {
            reject(
                "listen", "\(address) can be reached from elsewhere, and the page asks nobody who he is",
                "give a loopback address such as 127.0.0.1, and use `ssh -L` from elsewhere")
        }
        return given
    }
}
