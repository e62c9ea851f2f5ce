/* Grades answers to the NF4 conformance kit: cc -std=c11 -O2 -o grade grade.c -lm; ./grade KIT ANSWERS

   Reads KIT/cases.txt (kit.py says what is in it) and compares ANSWERS/CASE.OUTPUT.bin with the accepted files. Prints a
   line a check that fails, then the first rule, in the order of the file, that broke. Exit status: 0 all that is answered
   is right, 1 a rule broke, 2 no kit, or no answers. Little-endian machines. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = 16, LINE = 4096, PATH = 4096 };

/* A whole file in memory of its own, NULL if it is not there. */
static uint8_t *read_file(const char *folder, const char *name, long *size) {
    char path[PATH];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) return NULL;
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *size = ftell(file);
    rewind(file);
    uint8_t *data = malloc(*size > 0 ? (size_t)*size : 1);
    if (data && fread(data, 1, (size_t)*size, file) != (size_t)*size) {
        free(data);
        data = NULL;
    }
    fclose(file);
    return data;
}

static float number(const uint8_t *data, long index) {
    float value;
    memcpy(&value, data + 4 * index, 4);
    return value;
}

/* 1 if a code is at most one from that of an accepted file. */
static int near_one(uint8_t code, uint8_t **accepted, int count, long i) {
    for (int one = 0; one < count; one++)
        if (abs((int)code - (int)accepted[one][i]) <= 1) return 1;
    return 0;
}

/* The count of numbers that are wrong, *first the first of them; -1 for a file of another size. */
static long compare(const char *how, const uint8_t *answer, long size, uint8_t **accepted, const long *sizes, int count,
                    long width, long *first) {
    long wrong = 0;
    if (strcmp(how, "not-finite") == 0) {
        for (long i = 0; i < size / 4; i++)
            if (!isfinite(number(answer, i))) return 0;
        *first = 0;
        return 1;
    }
    if (size != sizes[0]) return -1;
    if (strcmp(how, "bytes") == 0)
        for (int one = 0; one < count; one++)
            if (sizes[one] == size && memcmp(answer, accepted[one], (size_t)size) == 0) return 0;
    for (long i = 0; i < size / width; i++) {
        int is_wrong;
        if (strcmp(how, "steps") == 0)
            is_wrong = !near_one(answer[i], accepted, count, i);
        else if (strcmp(how, "within") == 0)
            is_wrong = !(fabs((double)number(answer, i) - number(accepted[0], i)) <= (double)number(accepted[1], i));
        else
            is_wrong = memcmp(answer + i * width, accepted[0] + i * width, (size_t)width) != 0;
        if (is_wrong && wrong++ == 0) *first = i;
    }
    return wrong;
}

int main(int argc, char **argv) {
    char line[LINE], path[PATH], name[256] = "", broken[256] = "";
    long answered = 0, failed = 0, position = -1, at = 0;
    if (argc != 3 || snprintf(path, sizeof path, "%s/cases.txt", argv[1]) >= (int)sizeof path) {
        fprintf(stderr, "usage: grade KIT ANSWERS\n");
        return 2;
    }
    FILE *cases = fopen(path, "r");
    if (!cases) {
        fprintf(stderr, "%s: no such file\n", path);
        return 2;
    }
    while (fgets(line, sizeof line, cases)) {
        char *words[WORDS];
        int count = 0;
        for (char *word = strtok(line, " \n"); word && count < WORDS; word = strtok(NULL, " \n")) words[count++] = word;
        if (count > 1 && strcmp(words[0], "case") == 0) snprintf(name, sizeof name, "%s", words[1]);
        if (count < 6 || strcmp(words[0], "check") != 0) continue;
        at++;
        const char *output = words[1], *rule = words[2], *how = words[3];
        long width = strcmp(words[4], "uint8") == 0 ? 1 : strcmp(words[4], "float32") == 0 ? 4 : 2, size = 0, first = 0;
        snprintf(path, sizeof path, "%s.refused", name);
        uint8_t *refused = read_file(argv[2], path, &size);
        snprintf(path, sizeof path, "%s.%s.bin", name, output);
        uint8_t *answer = read_file(argv[2], path, &size), *accepted[WORDS] = {0};
        long sizes[WORDS] = {0}, wrong = 0;
        int files = count - 6, missing = 0;
        for (int one = 0; one < files; one++) missing |= !(accepted[one] = read_file(argv[1], words[6 + one], &sizes[one]));
        if (missing) {
            fprintf(stderr, "%s: %s %s: a file of the kit is missing\n", argv[1], name, output);
            return 2;
        }
        if (refused)
            wrong = strcmp(how, "not-finite") == 0 ? 0 : -1;
        else if (answer)
            wrong = compare(how, answer, size, accepted, sizes, files, width, &first);
        if (refused || answer) answered++;
        if (wrong) {
            failed++;
            if (wrong < 0)
                printf("BROKEN %s: %s: %s is %s\n", rule, name, output, refused ? "refused" : "of another size");
            else
                printf("BROKEN %s: %s: %ld of %s, first [%ld]\n", rule, name, wrong, output, first);
            if (position < 0) {
                position = at;
                snprintf(broken, sizeof broken, "%s", rule);
            }
        }
        for (int one = 0; one < files; one++) free(accepted[one]);
        free(refused);
        free(answer);
    }
    fclose(cases);
    if (!answered) {
        fprintf(stderr, "%s: holds no answer to any case\n", argv[2]);
        return 2;
    }
    if (failed)
        printf("%ld of %ld checks fail; look at the rule %s first\n", failed, answered, broken);
    else
        printf("all %ld checks that are answered hold\n", answered);
    return failed ? 1 : 0;
}
