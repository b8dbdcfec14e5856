import Glibc
import IMSCore
import MATRuntime

extension IMSServer {
    /// Hands on what the core has learned, if the store is one that others share.
    func shareNews() {
        guard let sharing else { return }
        let news = core.takeNews()
        if !news.isEmpty { sharing.share(news) }
    }
}

extension SystemError {
    /// Whether the kernel refused because the address to send from is not one of this host.
    var isAboutSource: Bool { errno == EINVAL || errno == EADDRNOTAVAIL || errno == ENETUNREACH || errno == ENODEV }
}
