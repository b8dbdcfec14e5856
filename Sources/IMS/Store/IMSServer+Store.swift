import IMSCore
import MATRuntime
import MATSignal

// Events of the store and of the verifiers on their way to the core, and the life of cookie secrets.

extension IMSServer {
    /// How long one cookie secret makes cookies. Two are valid at a time, so a cookie lives out its hour in any case.
    static let cookieSecretAge: Duration = .seconds(86_400)
    /// How soon a rotation of which nothing was heard is tried again.
    static let cookieSecretRetry: Duration = .seconds(60)
    /// How far ahead a secret may be made: the instances' clocks differ. One from the far future would never be rotated.
    static let cookieSecretAheadMax: Duration = .seconds(300)

    /// The store that the configuration names.
    static func openStore(_ configuration: IMSConfiguration) throws(IMSServerError) -> any MappingStoring {
        do throws(StoreError) {
            return try MappingStore(path: configuration.storePath)
        } catch {
            throw IMSServerError(error.description)
        }
    }

    func startStore() {
        let reference = UncheckedReference(self)
        let poster = loop.poster
        store.start { event in poster.post { reference.value?.stored(event) } }
        sharing?.serve()
    }

    func startVerifiers() {
        let reference = UncheckedReference(self)
        let poster = loop.poster
        verifiers.start { results in
            poster.post {
                guard let server = reference.value else { return }
                // One by one, so that what follows from each is known to come from its own message.
                server.turn {
                    for result in results {
                        server.run(since: server.metrics.verified(result.ticket)) { core, now in core.verified([result], now: now) }
                    }
                }
            }
        }
    }

    private func stored(_ event: StoreEvent) {
        run { core, now in core.store(event, now: now) }
        switch event {
        case .committed(let outcomes):
            metrics.committed(outcomes, SystemClock.now().monotonic)
            for outcome in outcomes {
                var failure: String?
                switch outcome.result {
                case .durable: break
                case .failed(let reason): failure = reason
                case .outrun, .conflict: failure = "another server of this IMS took something newer"
                }
                switch outcome.result {
                case .outrun, .conflict: break
                case .durable, .failed: storeFailure = failure
                }
                awaited.removeValue(forKey: outcome.ticket)?(failure)
            }
        case .secrets(let secrets):
            cookieSecrets = secrets
            rotateCookies(after: secrets)
        case .unavailable(let reason): storeFailure = reason
        case .available: storeFailure = nil
        case .caughtUp(let number): sharing?.freshness.release(number)
        case .left: hasLeft()
        default: break
        }
    }

    /// Asks for a new secret when the newest is of age. What the store then tells is what is used: durable first, since a cookie made
    /// with a secret that a restart loses would be refused.
    private func rotateCookies(after secrets: [CookieSecret]) {
        let now = SystemClock.now().wallMilliseconds
        let newest = secrets.first
        let age = newest.map { Duration.milliseconds(Int64(clamping: now) - Int64(clamping: $0.madeAt)) }
        if let age, age >= .zero - Self.cookieSecretAheadMax, age < Self.cookieSecretAge {
            rotateCookies(in: Self.cookieSecretAge - age, after: secrets)
            return
        }
        store.write(CookieSecret(octets: Self.randomOctets(), madeAt: max(now, (newest?.madeAt).map { $0 &+ 1 } ?? 0)))
        rotateCookies(in: Self.cookieSecretRetry, after: secrets)
    }

    private func rotateCookies(in delay: Duration, after secrets: [CookieSecret]) {
        if let secretTimer { loop.cancel(secretTimer) }
        secretTimer = loop.schedule(after: delay) { [weak self] in self?.rotateCookies(after: secrets) }
    }
}
