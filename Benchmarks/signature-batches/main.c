// What checking Ed25519 signatures in batches would save: the point arithmetic of single checks and of batches, timed in one run with one
// field implementation. It checks nothing: coordinates and digits are random, since time does not depend on them. Hashes (1 us) are left out.
//
//   single:   R = s B - h A                           256 doublings, A's table, additions of A and of B; A decompressed, R compressed
//   of n:     0 = (sum z s) B - sum z R - sum z h A   256 doublings for all; for each signature A and R decompressed, a table and additions
//                                                     of both, z having 128 bits
//
//   signature-batches [ROUNDS]
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned __int128 wide;
// A number modulo 2^255 - 19 in limbs of 51 bits.
typedef struct { uint64_t limb[5]; } field;
typedef struct { field x, y, z, t; } point;
// A point as it stands in a table: y - x, y + x, 2 z, 2 d t.
typedef struct { field minus, plus, z, t; } entry;
enum { SCALAR_BITS = 256, SHORT_BITS = 128, TABLE = 8, DIGIT_EVERY = 6, BATCH_MAX = 64, CHECKS = 6400 };
static const uint64_t mask = (1ULL << 51) - 1;

static inline void reduce(field *r, wide a, wide b, wide c, wide d, wide e) {
    b += (uint64_t)(a >> 51); c += (uint64_t)(b >> 51); d += (uint64_t)(c >> 51); e += (uint64_t)(d >> 51);
    uint64_t first = ((uint64_t)a & mask) + (uint64_t)(e >> 51) * 19;
    r->limb[0] = first & mask; r->limb[1] = ((uint64_t)b & mask) + (first >> 51);
    r->limb[2] = (uint64_t)c & mask; r->limb[3] = (uint64_t)d & mask; r->limb[4] = (uint64_t)e & mask;
}

static inline void multiply(field *r, const field *f, const field *g) {
    const uint64_t *a = f->limb, *b = g->limb;
    uint64_t b1 = b[1] * 19, b2 = b[2] * 19, b3 = b[3] * 19, b4 = b[4] * 19;
    reduce(r, (wide)a[0] * b[0] + (wide)a[1] * b4 + (wide)a[2] * b3 + (wide)a[3] * b2 + (wide)a[4] * b1,
        (wide)a[0] * b[1] + (wide)a[1] * b[0] + (wide)a[2] * b4 + (wide)a[3] * b3 + (wide)a[4] * b2,
        (wide)a[0] * b[2] + (wide)a[1] * b[1] + (wide)a[2] * b[0] + (wide)a[3] * b4 + (wide)a[4] * b3,
        (wide)a[0] * b[3] + (wide)a[1] * b[2] + (wide)a[2] * b[1] + (wide)a[3] * b[0] + (wide)a[4] * b4,
        (wide)a[0] * b[4] + (wide)a[1] * b[3] + (wide)a[2] * b[2] + (wide)a[3] * b[1] + (wide)a[4] * b[0]);
}

static inline void square(field *r, const field *f) {
    const uint64_t *a = f->limb;
    uint64_t a0 = 2 * a[0], a1 = 2 * a[1], a2 = 38 * a[2], a3 = 19 * a[3], a4 = 19 * a[4];
    reduce(r, (wide)a[0] * a[0] + (wide)(2 * a4) * a[1] + (wide)a2 * a[3], (wide)a0 * a[1] + (wide)(2 * a4) * a[2] + (wide)a3 * a[3],
        (wide)a0 * a[2] + (wide)a[1] * a[1] + (wide)(2 * a4) * a[3], (wide)a0 * a[3] + (wide)a1 * a[2] + (wide)a4 * a[4],
        (wide)a0 * a[4] + (wide)a1 * a[3] + (wide)a[2] * a[2]);
}

static inline void sum(field *r, const field *a, const field *b) { for (int i = 0; i < 5; i++) r->limb[i] = a->limb[i] + b->limb[i]; }
static inline void difference(field *r, const field *a, const field *b) {
    // Four times the modulus more, so that no limb goes below zero.
    r->limb[0] = a->limb[0] + 4 * (mask - 18) - b->limb[0];
    for (int i = 1; i < 5; i++) r->limb[i] = a->limb[i] + 4 * mask - b->limb[i];
}
static inline void tidy(field *r) { reduce(r, r->limb[0], r->limb[1], r->limb[2], r->limb[3], r->limb[4]); }

// dbl-2008-hwcd and add-2008-hwcd-3 of the Explicit-Formulas Database; `t` is left out where a doubling follows.
static void twice(point *r, int with_t) {
    field a, b, c, e, f, g, h;
    square(&a, &r->x); square(&b, &r->y); square(&c, &r->z); sum(&c, &c, &c);
    sum(&h, &a, &b); sum(&e, &r->x, &r->y); square(&e, &e); difference(&e, &e, &h); difference(&g, &b, &a);
    difference(&f, &c, &g); tidy(&f);
    multiply(&r->x, &e, &f); multiply(&r->y, &g, &h); multiply(&r->z, &f, &g);
    if (with_t) multiply(&r->t, &e, &h);
}

static void add(point *r, const entry *q, int with_t) {
    field a, b, c, e, f, g, h;
    difference(&a, &r->y, &r->x); multiply(&a, &a, &q->minus); sum(&b, &r->y, &r->x); multiply(&b, &b, &q->plus);
    multiply(&c, &r->t, &q->t); multiply(&g, &r->z, &q->z);
    difference(&e, &b, &a); sum(&h, &b, &a); difference(&f, &g, &c); sum(&g, &g, &c);
    multiply(&r->x, &e, &f); multiply(&r->y, &g, &h); multiply(&r->z, &f, &g);
    if (with_t) multiply(&r->t, &e, &h);
}

static void enter(entry *e, const point *p) {
    difference(&e->minus, &p->y, &p->x); sum(&e->plus, &p->y, &p->x); sum(&e->z, &p->z, &p->z); multiply(&e->t, &p->t, &p->y);
}

// The odd multiples that digits of five bits name.
static void fill(entry *table, point p) {
    point doubled = p; entry step;
    twice(&doubled, 1); enter(&step, &doubled); enter(&table[0], &p);
    for (int i = 1; i < TABLE; i++) { add(&p, &step, 1); enter(&table[i], &p); }
}

// A square root costs what an inversion costs: 252 squarings and 11 multiplications.
static void power(field *r) { field a = *r; for (int i = 0; i < 252; i++) square(r, r); for (int i = 0; i < 11; i++) multiply(r, r, &a); }

static uint64_t state = 88172645463325252ULL;
static uint64_t draw(void) { state ^= state << 13; state ^= state >> 7; return state ^= state << 17; }
static int digit(void) { return draw() % DIGIT_EVERY == 0; }
static void made_up(field *f) { for (int i = 0; i < 5; i++) f->limb[i] = draw() & mask; }

static void decompress(point *p) {
    field u, v;
    made_up(&p->y); square(&u, &p->y); multiply(&v, &u, &p->y); square(&p->x, &v); multiply(&p->x, &p->x, &v); multiply(&p->x, &p->x, &u);
    power(&p->x); multiply(&p->x, &p->x, &u); multiply(&p->x, &p->x, &v); square(&v, &p->x); multiply(&v, &v, &u);
    p->z = v; multiply(&p->t, &p->x, &p->y);
}

static entry base[TABLE], tables[2 * BATCH_MAX][TABLE];

static void check_one(void) {
    point r;
    decompress(&r); fill(tables[0], r);
    for (int bit = 0; bit < SCALAR_BITS; bit++) {
        int of_key = digit(), of_base = digit();
        twice(&r, of_key || of_base);
        if (of_key) add(&r, &tables[0][draw() % TABLE], of_base);
        if (of_base) add(&r, &base[draw() % TABLE], 0);
    }
    power(&r.z); base[0].t = r.z;
}

static void check_batch(int count) {
    point r;
    for (int i = 0; i < 2 * count; i++) { decompress(&r); fill(tables[i], r); }
    for (int bit = 0; bit < SCALAR_BITS; bit++) {
        twice(&r, 1);
        if (digit()) add(&r, &base[draw() % TABLE], 1);
        for (int i = 0; i < count; i++) {
            if (digit()) add(&r, &tables[i][draw() % TABLE], 1);
            if (bit >= SCALAR_BITS - SHORT_BITS && digit()) add(&r, &tables[count + i][draw() % TABLE], 1);
        }
    }
    base[0].t = r.x;
}

static double microseconds(void) { struct timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return t.tv_sec * 1e6 + t.tv_nsec / 1e3; }

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 5;
    if (count > 2 || rounds < 1 || rounds > 1000) { fprintf(stderr, "usage: signature-batches [ROUNDS]\n"); return 64; }
    point p; decompress(&p); fill(base, p);
    printf("us of the processor for each signature\n%8s", "single");
    for (int each = 4; each <= BATCH_MAX; each *= 2) printf("%8d", each);
    puts("");
    while (rounds-- > 0) {
        double start = microseconds();
        for (int i = 0; i < CHECKS; i++) check_one();
        printf("%8.1f", (microseconds() - start) / CHECKS);
        for (int each = 4; each <= BATCH_MAX; each *= 2) {
            start = microseconds();
            for (int i = 0; i < CHECKS / each; i++) check_batch(each);
            printf("%8.1f", (microseconds() - start) / (CHECKS / each * each));
        }
        puts("");
    }
}
