/* A PKCS#11 client that forks, starts threads and waits, for tests/fork.rs, concurrency.rs and
 * tools.rs.
 *
 *   client MODE MODULE TOKEN LABEL [NUMBER...]
 *
 * Each signature is printed as "sig DIGEST SIGNATURE" in hexadecimal by one write(2), so that
 * children and threads may share the output; the test verifies all of them. Anything unexpected
 * ends the program with a message and code 1; a child that hangs dies by its alarm.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DIGEST = 32, SIGNATURE = 64, STORM_THREADS = 8, STORM_FORKS = 200, CHILD_SECONDS = 30 };

static CK_FUNCTION_LIST *p11;
static const char *token, *label;

#define WANT(call, wanted)                                                                     \
    do {                                                                                       \
        CK_RV rv_ = (call);                                                                    \
        if (rv_ != (wanted))                                                                   \
            fail(#call, __LINE__, rv_, wanted);                                                \
    } while (0)
#define OK(call) WANT(call, CKR_OK)

static void fail(const char *call, int line, CK_RV got, CK_RV wanted)
{
    dprintf(2, "client.c:%d: %s gave 0x%lx, not 0x%lx\n", line, call, got, wanted);
    _exit(1);
}

static void load(const char *module)
{
    void *lib = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        dprintf(2, "%s\n", dlerror());
        _exit(1);
    }
    CK_RV (*list)(CK_FUNCTION_LIST **) = (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(lib, "C_GetFunctionList");
    OK(list(&p11));
}

static CK_SLOT_ID slot(void)
{
    CK_SLOT_ID slots[64];
    CK_ULONG count = 64;
    OK(p11->C_GetSlotList(CK_TRUE, slots, &count));
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        OK(p11->C_GetTokenInfo(slots[i], &info));
        size_t length = strlen(token);
        if (!memcmp(info.label, token, length) && (length == 32 || info.label[length] == ' '))
            return slots[i];
    }
    dprintf(2, "no token %s\n", token);
    _exit(1);
}

static CK_SESSION_HANDLE open_session(void)
{
    CK_SESSION_HANDLE session;
    OK(p11->C_OpenSession(slot(), CKF_SERIAL_SESSION, NULL, NULL, &session));
    return session;
}

/* The private key's handle, or 0 where there is none. */
static CK_OBJECT_HANDLE find(CK_SESSION_HANDLE session)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class},
                             {CKA_LABEL, (void *)label, strlen(label)}};
    CK_OBJECT_HANDLE key = 0;
    CK_ULONG count = 0;
    OK(p11->C_FindObjectsInit(session, wanted, 2));
    OK(p11->C_FindObjects(session, &key, 1, &count));
    OK(p11->C_FindObjectsFinal(session));
    return count ? key : 0;
}

static CK_OBJECT_HANDLE the_key(CK_SESSION_HANDLE session)
{
    CK_OBJECT_HANDLE key = find(session);
    if (!key) {
        dprintf(2, "no key %s\n", label);
        _exit(1);
    }
    return key;
}

static void print(const unsigned char *digest, const unsigned char *signature)
{
    char line[5 + 2 * (DIGEST + SIGNATURE) + 2], *at = line;
    at += sprintf(at, "sig ");
    for (int i = 0; i < DIGEST; i++)
        at += sprintf(at, "%02x", digest[i]);
    *at++ = ' ';
    for (int i = 0; i < SIGNATURE; i++)
        at += sprintf(at, "%02x", signature[i]);
    *at++ = '\n';
    if (write(1, line, at - line) != at - line)
        _exit(1);
}

static void sign(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    unsigned char digest[DIGEST], signature[SIGNATURE];
    CK_ULONG length = sizeof signature;
    if (getrandom(digest, sizeof digest, 0) != sizeof digest)
        _exit(1);
    OK(p11->C_SignInit(session, &ecdsa, key));
    OK(p11->C_Sign(session, digest, sizeof digest, signature, &length));
    if (length != SIGNATURE)
        fail("length of the signature", __LINE__, length, SIGNATURE);
    print(digest, signature);
}

/* What a child does that wants to go on by itself. */
static void sign_afresh(void)
{
    CK_SESSION_HANDLE session = open_session();
    sign(session, the_key(session));
    OK(p11->C_Finalize(NULL));
}

static pid_t child(void (*body)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        body();
        _exit(0);
    }
    return pid;
}

static void reap(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        dprintf(2, "child ended with status 0x%x%s\n", status,
                WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? ": it hung" : "");
        _exit(1);
    }
}

/* Handles from before the fork, for the children. */
static CK_SESSION_HANDLE parents_session;
static CK_OBJECT_HANDLE parents_key;

static void is_not_initialised(void)
{
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    CK_INFO info;
    CK_ULONG count;
    unsigned char buffer[SIGNATURE];
    CK_ULONG length = sizeof buffer;
    CK_FUNCTION_LIST *list;
    OK(p11->C_GetFunctionList(&list));
    WANT(p11->C_GetInfo(&info), CKR_CRYPTOKI_NOT_INITIALIZED);
    WANT(p11->C_GetSlotList(CK_TRUE, NULL, &count), CKR_CRYPTOKI_NOT_INITIALIZED);
    WANT(p11->C_SignInit(parents_session, &ecdsa, parents_key), CKR_CRYPTOKI_NOT_INITIALIZED);
    WANT(p11->C_Sign(parents_session, buffer, DIGEST, buffer, &length), CKR_CRYPTOKI_NOT_INITIALIZED);
    WANT(p11->C_CloseSession(parents_session), CKR_CRYPTOKI_NOT_INITIALIZED);
    WANT(p11->C_Finalize(NULL), CKR_CRYPTOKI_NOT_INITIALIZED);
}

static void initialise_and_sign(void)
{
    OK(p11->C_Initialize(NULL));
    sign_afresh();
}

static void initialise_twice(void)
{
    initialise_and_sign();
    initialise_and_sign();
}

static void start(void)
{
    OK(p11->C_Initialize(NULL));
    parents_session = open_session();
    parents_key = the_key(parents_session);
    sign(parents_session, parents_key);
}

/* 2 signatures: the parent's before and after. */
static void silent_child(void)
{
    start();
    reap(child(is_not_initialised));
    sign(parents_session, parents_key);
}

/* 4 signatures: a grandchild and a child between the parent's two. */
static void with_grandchild(void)
{
    OK(p11->C_Initialize(NULL));
    CK_SESSION_HANDLE session = open_session();
    sign(session, the_key(session));
    reap(child(initialise_and_sign));
    OK(p11->C_Finalize(NULL));
}

static void signing_child(void)
{
    start();
    reap(child(with_grandchild));
    sign(parents_session, parents_key);
}

/* 5 signatures: parent 1 + 1 + 1, child 2. */
static void again(void)
{
    start();
    OK(p11->C_Finalize(NULL));
    WANT(p11->C_Finalize(NULL), CKR_CRYPTOKI_NOT_INITIALIZED);
    start();
    WANT(p11->C_Initialize(NULL), CKR_CRYPTOKI_ALREADY_INITIALIZED);
    reap(child(initialise_twice));
    sign(parents_session, parents_key);
}

static void initialise_in_handler(void)
{
    OK(p11->C_Initialize(NULL));
}

/* 3 signatures: parent 2, child 1. */
static void in_atfork(void)
{
    start();
    pthread_atfork(NULL, NULL, initialise_in_handler);
    reap(child(sign_afresh));
    sign(parents_session, parents_key);
}

static atomic_bool finished;
static long rounds;

/* Signs `rounds` times, or until told to stop; says how often. */
static void *sign_on(void *done)
{
    CK_SESSION_HANDLE session = open_session();
    CK_OBJECT_HANDLE key = the_key(session);
    long count = 0;
    while (rounds ? count < rounds : !atomic_load(&finished)) {
        sign(session, key);
        count++;
    }
    *(long *)done = count;
    OK(p11->C_CloseSession(session));
    return NULL;
}

static long threads(int count, void (*meanwhile)(void))
{
    pthread_t id[64];
    long done[64], all = 0;
    for (int i = 0; i < count; i++)
        pthread_create(&id[i], NULL, sign_on, &done[i]);
    if (meanwhile)
        meanwhile();
    atomic_store(&finished, true);
    for (int i = 0; i < count; i++) {
        pthread_join(id[i], NULL);
        all += done[i];
    }
    return all;
}

static void fork_often(void)
{
    for (int i = 0; i < STORM_FORKS; i++)
        reap(child(i % 2 ? initialise_and_sign : is_not_initialised));
}

/* 8 threads sign while children come and go; prints how many signatures there are. */
static void storm(void)
{
    start();
    long count = threads(STORM_THREADS, fork_often);
    sign(parents_session, parents_key);
    dprintf(2, "signatures: %ld\n", count + 2 + STORM_FORKS / 2);
}

static void sign_in_threads(int count, long each)
{
    OK(p11->C_Initialize(NULL));
    rounds = each;
    threads(count, NULL);
    OK(p11->C_Finalize(NULL));
}

/* Runs with the token open; says so, and waits up to 30 s for a key that another process makes. */
static void watch(void)
{
    OK(p11->C_Initialize(NULL));
    CK_SESSION_HANDLE session = open_session();
    if (find(session)) {
        dprintf(2, "the key is there too early\n");
        _exit(1);
    }
    dprintf(1, "watching\n");
    for (int tries = 0; tries < 3000; tries++) {
        CK_OBJECT_HANDLE key = find(session);
        if (key) {
            sign(session, key);
            dprintf(1, "signed\n");
            return;
        }
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    dprintf(2, "no key has come\n");
    _exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    const char *mode = argv[1];
    token = argv[3], label = argv[4];
    load(argv[2]);
    if (!strcmp(mode, "silent-child"))
        silent_child();
    else if (!strcmp(mode, "signing-child"))
        signing_child();
    else if (!strcmp(mode, "again"))
        again();
    else if (!strcmp(mode, "atfork"))
        in_atfork();
    else if (!strcmp(mode, "storm"))
        storm();
    else if (!strcmp(mode, "watch"))
        watch();
    else if (!strcmp(mode, "threads") && argc == 7)
        sign_in_threads(atoi(argv[5]), atol(argv[6]));
    else
        return 2;
    return 0;
}
