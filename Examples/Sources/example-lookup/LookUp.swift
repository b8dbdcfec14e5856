import Glibc
import MATClient
import MATSignal

/// example-lookup HOME-ADDRESS: where it is, a line for each place.
@main
struct LookUp {
    static func main() async {
        guard CommandLine.arguments.count == 2, let home = HomeAddress(CommandLine.arguments[1]) else {
            fail("usage: example-lookup HOME-ADDRESS", 64)
        }
        do {
            let client = try MobilityClient()
            switch try await client.lookUp(home) {
            case .registered(let mapping): for place in mapping.record.places { print("\(home) is at \(describe(place))") }
            case .withdrawn: print("\(home) is nowhere, as its node says")
            case .revoked: print("\(home) is revoked")
            case .unregistered: print("\(home) is not registered")
            case .plain: print("\(home) is a plain address")
            }
        } catch {
            // Nothing is known, which is something else than a plain address.
            fail("\(error)", 1)
        }
    }

    static func describe(_ place: MappingRecord.Place) -> String {
        switch place {
        case .moa(let locator): "\(locator.moa)"
        case .endpoint(let endpoint, _): "\(endpoint), in datagrams"
        case .relay(let relay, _): "the relay \(relay)"
        case .unknown(let place): "a place of kind \(place.kind)"
        }
    }

    static func fail(_ reason: String, _ status: Int32) -> Never {
        let line = "example-lookup: \(reason)\n"
        _ = write(STDERR_FILENO, line, line.utf8.count)
        exit(status)
    }
}
