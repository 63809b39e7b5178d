/* A defect in the module, seen from its host; for tests/panic.rs.
 *
 *   panic MODULE TOKEN LABEL
 *
 * The shipped module cannot be told to panic. But the first map that a thread of it makes takes
 * random numbers from getrandom(3), for whose failure Rust's standard library panics; and this
 * program's own getrandom comes before the C library's, for it is linked with -rdynamic.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static CK_FUNCTION_LIST *p11;
static CK_SESSION_HANDLE one, two;
static __thread int failures;

ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
    if (failures > 0) {
        failures--;
        errno = EIO;
        return -1;
    }
    return syscall(SYS_getrandom, buffer, length, flags);
}

#define WANT(call, wanted)                                                                     \
    do {                                                                                       \
        CK_RV rv_ = (call);                                                                    \
        if (rv_ != (wanted)) {                                                                 \
            printf("panic.c:%d: %s gave 0x%lx\n", __LINE__, #call, rv_);                       \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)
#define OK(call) WANT(call, CKR_OK)

static CK_SESSION_HANDLE open_session(void)
{
    CK_SLOT_ID slot;
    CK_ULONG count = 1;
    CK_SESSION_HANDLE session;
    OK(p11->C_GetSlotList(CK_TRUE, NULL, &count));
    OK(p11->C_GetSlotList(CK_TRUE, &slot, &count));
    OK(p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session));
    return session;
}

static CK_OBJECT_HANDLE find(CK_SESSION_HANDLE session, const char *label)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class},
                             {CKA_LABEL, (void *)label, strlen(label)}};
    CK_OBJECT_HANDLE key = 0;
    CK_ULONG count = 0;
    OK(p11->C_FindObjectsInit(session, wanted, 2));
    OK(p11->C_FindObjects(session, &key, 1, &count));
    OK(p11->C_FindObjectsFinal(session));
    WANT(count, 1);
    return key;
}

static void begin(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    OK(p11->C_SignInit(session, &ecdsa, key));
}

static void end(CK_SESSION_HANDLE session)
{
    unsigned char digest[32] = {7}, signature[64];
    CK_ULONG length = sizeof signature;
    OK(p11->C_Sign(session, digest, sizeof digest, signature, &length));
    WANT(length, 64);
}

static void *panic(void *ignored)
{
    failures = 1;
    WANT(p11->C_FindObjectsInit(one, NULL, 0), CKR_GENERAL_ERROR);
    WANT(failures, 0);
    return ignored;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    void *lib = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        puts(dlerror());
        return 1;
    }
    CK_RV (*list)(CK_FUNCTION_LIST **) = (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(lib, "C_GetFunctionList");
    OK(list(&p11));
    OK(p11->C_Initialize(NULL));
    one = open_session(), two = open_session();
    CK_OBJECT_HANDLE key = find(two, argv[3]);
    begin(two, key);

    /* A new file in the token's directory: the next search makes a map of what is there. */
    close(open(argv[2], O_CREAT | O_WRONLY, 0600));
    pthread_t thread;
    pthread_create(&thread, NULL, panic, NULL);
    pthread_join(thread, NULL);

    WANT(p11->C_CloseSession(one), CKR_SESSION_HANDLE_INVALID);
    /* The token was opened anew, and what other sessions know of its objects holds. */
    CK_ATTRIBUTE id = {CKA_ID, NULL, 0};
    OK(p11->C_GetAttributeValue(two, key, &id, 1));
    if (find(two, argv[3]) != key) {
        puts("another handle");
        return 1;
    }
    /* The other session's operation goes on, and new ones begin, in old and new sessions. */
    end(two);
    begin(two, find(two, argv[3]));
    end(two);
    one = open_session();
    begin(one, find(one, argv[3]));
    end(one);
    OK(p11->C_Finalize(NULL));
    puts("survived");
    return 0;
}
